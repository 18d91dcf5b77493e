// Timeouts, low-water marks, and signals that end a wait or do not.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>

#include "cases.h"

namespace differential {

namespace {

/// A call and how long it took, as "at once", "in time" or in milliseconds.
Outcome timed(const End& end, const std::string& what, int expected_milliseconds,
              const std::function<long()>& body) {
    return end.call_with_text(what, [&](Outcome& outcome) {
        timespec from;
        timespec to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        outcome.value = body();
        outcome.error = errno;
        clock_gettime(CLOCK_MONOTONIC, &to);
        const long took = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1'000'000;
        outcome.text = took + 1 >= expected_milliseconds ? "in time" : format("%ld ms", took);
    });
}

void install(const End& end, int signal, int flags) {
    end.quietly("sigaction", [&](Outcome&) {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        action.sa_flags = flags;
        sigaction(signal, &action, nullptr);
    });
}

}  // namespace

CASE_THAT(receive_timeout, kBlocking) {
    p.b.set_time(SO_RCVTIMEO, 30);
    char bytes[16];
    timed(p.b, "recv", 30, [&] { return ::recv(p.b.fd(), bytes, 10, 0); });
    timed(p.b, "read", 30, [&] { return ::read(p.b.fd(), bytes, 10); });
    timed(p.b, "recv MSG_PEEK", 30, [&] { return ::recv(p.b.fd(), bytes, 10, MSG_PEEK); });
    p.a.send("abc");
    p.b.await_bytes(3);
    timed(p.b, "recv MSG_WAITALL", 30, [&] { return ::recv(p.b.fd(), bytes, 10, MSG_WAITALL); });
    p.b.get(SOL_SOCKET, SO_RCVTIMEO);
    p.b.set_time(SO_RCVTIMEO, 0);
    Pending receiving = p.b.start_recv(3);
    receiving.still_waiting();
    p.a.send("def");
    receiving.finish();
}

CASE_THAT(receive_of_zero_times_out, kBlocking) {
    p.b.set_time(SO_RCVTIMEO, 30);
    p.b.recv(0);
}

CASE_THAT(receive_timeout_set_by_duplicate, kBlocking) {
    const End copy = p.b.dup("copy");
    copy.set_time(SO_RCVTIMEO, 20);
    p.b.recv(1);
    copy.set_time(SO_RCVTIMEO, 0);
}

CASE_THAT(receive_timeout_before_connecting, kBare | kBlocking) {
    const auto limit = [](int fd) {
        const timeval time{0, 25'000};
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    };
    p.before_connect = limit;
    p.before_listen = limit;
    p.establish();
    p.a.recv(1);
    p.b.recv(1);
}

CASE_THAT(low_water, kBlocking) {
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 5);
    p.b.get(SOL_SOCKET, SO_RCVLOWAT);
    Pending receiving = p.b.start_recv(100);
    p.a.send("abc");
    receiving.still_waiting();
    p.a.send("def");
    receiving.finish();
    p.a.send("xy");
    p.b.await_bytes(2);
    p.b.poll(POLLIN);
    wait_for(Selector::kSelect, {{p.b, POLLIN}});
    p.a.send("zzz");
    p.b.await_bytes(5);
    p.b.poll(POLLIN);
    p.b.recv(2);
    p.b.poll(POLLIN);
    p.b.recv(100, MSG_DONTWAIT);
    p.a.send("q");
    p.b.await_bytes(1);
    p.b.recv(1);
    p.a.send("end");
    p.b.await_bytes(3);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.poll(POLLIN);
    p.b.recv(100);
}

namespace {

/// Bytes lie in the ring, and the rest of so many comes over the kernel lane.
void reach_the_mark_on_both_lanes(Pair& p, const std::function<Pending()>& start) {
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 5);
    p.a.send("abc");
    p.b.await_bytes(3);
    p.b.poll(POLLIN);
    Pending waiting = start();
    p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    waiting.still_waiting();
    p.a.send("def");
    waiting.finish();
    p.b.poll(POLLIN);
    p.b.recv(100, MSG_DONTWAIT);
    p.b.poll(POLLIN);
}

}  // namespace

CASE(low_water_on_both_lanes_under_a_poll) {
    reach_the_mark_on_both_lanes(p, [&] { return start_wait_for(Selector::kPoll, {{p.b, POLLIN}}); });
}

CASE(low_water_on_both_lanes_under_a_set) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLET);
    reach_the_mark_on_both_lanes(p, [&] { return set.start_wait(); });
}

CASE_THAT(low_water_on_both_lanes_under_a_receive, kBlocking) {
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 5);
    Pending waiting = p.b.start_recv(100);
    p.a.send("abc");
    waiting.still_waiting();
    p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    waiting.still_waiting();
    p.a.send("def");
    waiting.finish();
}

CASE(low_water_nonblocking) {
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 5);
    p.a.send("abc");
    p.b.await_bytes(3);
    p.b.recv(100, MSG_DONTWAIT);
    p.b.recv(100, MSG_DONTWAIT);
    p.a.send("abc");
    p.b.await_bytes(3);
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    set.wait();
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 1);
    set.await_ready(p.b);
    set.wait();
    p.b.poll(POLLIN);
}

CASE(low_water_lowered_under_a_wait) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    p.a.send("01234");
    p.b.await_bytes(5);
    const auto lower = [&](Pending waiting) {
        waiting.still_waiting();
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, 3);
        waiting.finish();
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, 8);
    };
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 8);
    lower(start_wait_for(Selector::kPoll, {{p.b, POLLIN}}));
    lower(start_wait_for(Selector::kSelect, {{p.b, POLLIN}}));
    lower(set.start_wait());
}

// What wakes a receive is the mark as it is when bytes come; what it waits for is what it was at first.
CASE_THAT(low_water_raised_under_a_receive, kBlocking) {
    install(p.b, SIGUSR1, 0);
    for (const int flags : std::vector<int>{0, MSG_PEEK, MSG_WAITALL}) {
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, 1);
        Pending receiving = p.b.start_recv(12, flags);
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, 10);
        p.a.send("hello");
        receiving.still_waiting();
        p.a.send("world");
        if (flags == MSG_WAITALL) {
            receiving.still_waiting();
            p.a.send("xy");  // fewer than the mark: the bytes wait, and so does the call
            receiving.still_waiting();
            p.a.send("01234567");
        }
        receiving.finish();
        p.b.recv(100, MSG_DONTWAIT);
    }
    // However the wait ends, what is there is taken.
    Pending interrupted = p.b.start_recv(100);
    p.a.send("hello");
    p.b.await_bytes(5);
    interrupted.still_waiting();
    interrupted.interrupt(SIGUSR1);
    interrupted.finish();
    Pending ended = p.b.start_recv(100);
    p.a.send("hello");
    ended.still_waiting();
    p.a.shutdown(SHUT_WR);
    ended.finish();
}

CASE_THAT(low_water_and_a_receive_of_less, kBlocking) {
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 10);
    Pending receiving = p.b.start_recv(3);
    p.a.send("hello");
    receiving.still_waiting();
    p.a.send("world");
    receiving.finish();
    p.b.recv(100, MSG_DONTWAIT);
    p.a.send("hello");
    p.b.await_bytes(5);
    Pending more = p.b.start_recv(100);  // takes these, and waits for as many as the mark says
    p.a.send("world");
    more.still_waiting();
    p.b.set(SOL_SOCKET, SO_RCVLOWAT, 5);
    more.finish();
}

CASE(low_water_raised_under_a_wait) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    EpollSet edges(p.script, p.b.actor(), "edges");
    edges.add(p.b, EPOLLIN | EPOLLET);
    const auto raise = [&](Pending waiting) {
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, 10);
        p.a.send("hello");
        p.b.await_bytes(5);
        waiting.still_waiting();
        p.a.send("world");
        waiting.finish();
        p.b.recv(100, MSG_DONTWAIT);
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, 1);
    };
    raise(start_wait_for(Selector::kPoll, {{p.b, POLLIN}}));
    raise(start_wait_for(Selector::kSelect, {{p.b, POLLIN}}));
    raise(set.start_wait());
    edges.wait();
    raise(edges.start_wait());
}

CASE_THAT(interrupted, kBlocking) {
    install(p.b, SIGUSR1, 0);
    Pending receiving = p.b.start_recv(10);
    receiving.interrupt(SIGUSR1);
    receiving.finish();
    Pending all = p.b.start_recv(10, MSG_WAITALL);
    p.a.send("part");
    p.a.outq();  // until the kernel has really delivered it
    all.still_waiting();
    all.interrupt(SIGUSR1);
    all.finish();
    Pending waiting = start_wait_for(Selector::kPoll, {{p.b, POLLIN}});
    waiting.interrupt(SIGUSR1);
    waiting.finish();
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.recv(10);
}

CASE_THAT(interrupted_with_restart, kBlocking) {
    install(p.b, SIGUSR1, SA_RESTART);
    Pending receiving = p.b.start_recv(10);
    receiving.interrupt(SIGUSR1);
    receiving.still_waiting();
    p.a.send("x");
    receiving.finish();
    for (const Selector selector : {Selector::kPoll, Selector::kSelect}) {
        Pending waiting = start_wait_for(selector, {{p.b, POLLIN}});
        waiting.interrupt(SIGUSR1);
        waiting.finish();
    }
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    Pending waiting = set.start_wait();
    waiting.interrupt(SIGUSR1);
    waiting.finish();
    // A timeout takes the restart away.
    p.b.set_time(SO_RCVTIMEO, 10'000);
    Pending timed_receive = p.b.start_recv(10);
    timed_receive.interrupt(SIGUSR1);
    timed_receive.finish();
}

CASE_THAT(interrupted_by_either_kind, kBlocking) {
    // One handler restarts, the other does not: each signal has its own effect.
    install(p.b, SIGUSR1, SA_RESTART);
    install(p.b, SIGUSR2, 0);
    Pending receiving = p.b.start_recv(10);
    receiving.interrupt(SIGUSR1);
    receiving.still_waiting();
    receiving.interrupt(SIGUSR2);
    receiving.finish();
}

CASE_THAT(interrupted_send, kBlocking) {
    install(p.a, SIGUSR1, 0);
    p.a.fill();
    Pending sending = p.a.start_send("nothing fits");
    sending.interrupt(SIGUSR1);
    sending.finish();
    install(p.a, SIGUSR1, SA_RESTART);
    Pending again = p.a.start_send("nothing fits");
    again.interrupt(SIGUSR1);
    again.still_waiting();
    p.b.close();
    again.finish();
}

namespace {

/// What the handler of SIGUSR2 does to the descriptor that the call under it waits on. The kernel begins the
/// call anew after it, and sees that.
std::atomic<int> changed{-1};
std::atomic<int> other{-1};
std::atomic<int> changes_made{0};

void install_change(const End& end, void (*change)(int)) {
    end.quietly("sigaction", [&](Outcome&) {
        changed.store(end.fd());
        changes_made.store(0);
        struct sigaction action {};
        action.sa_handler = change;
        action.sa_flags = SA_RESTART;
        sigaction(SIGUSR2, &action, nullptr);
    });
}

/// `call` in a thread that gets the signal once it sleeps.
void call_under_change(const End& end, const std::string& what, long (*call)(int fd)) {
    end.call(what, [&]() -> long {
        static std::atomic<long> result;
        static std::atomic<int> error;
        static std::atomic<long (*)(int)> body;
        static std::atomic<pid_t> tid;
        static std::atomic<bool> done;
        body.store(call);
        tid.store(0);
        done.store(false);
        pthread_t thread;
        pthread_create(
            &thread, nullptr,
            [](void*) -> void* {
                tid.store(gettid());
                const long value = body.load()(changed.load());
                error.store(errno);
                result.store(value);
                done.store(true);
                return nullptr;
            },
            nullptr);
        await_sleep(tid, done);
        pthread_kill(thread, SIGUSR2);
        pthread_join(thread, nullptr);
        errno = error.load();
        return changes_made.load() == 1 ? result.load() : -2;
    });
}

long receive_some(int fd) {
    char bytes[16];
    return ::recv(fd, bytes, sizeof bytes, 0);
}
long read_some(int fd) {
    char bytes[16];
    return ::read(fd, bytes, sizeof bytes);
}
long receive_message(int fd) {
    char bytes[16];
    iovec part{bytes, sizeof bytes};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    return ::recvmsg(fd, &message, 0);
}

void close_it(int) {
    ::close(changed.load());
    changes_made.fetch_add(1);
}

}  // namespace

CASE_THAT(closed_by_a_restarting_handler, kBlocking) {
    install_change(p.b, close_it);
    call_under_change(p.b, "recv", receive_some);
    p.a.await_end();
    p.a.recv(10);
}

CASE_THAT(closed_by_a_restarting_handler_under_recvmsg, kBlocking) {
    install_change(p.b, close_it);
    call_under_change(p.b, "recvmsg", receive_message);
    p.a.await_end();
    p.a.recv(10);
}

CASE_THAT(closed_by_a_restarting_handler_of_two_kinds, kBlocking) {
    install(p.b, SIGUSR1, 0);  // with this one a sleep is made in another way
    install_change(p.b, close_it);
    call_under_change(p.b, "recv", receive_some);
    p.a.await_end();
    p.a.recv(10);
}

namespace {

long poll_for_bytes(int fd) {
    pollfd one{fd, POLLIN, 0};
    return ::poll(&one, 1, 10'000);
}

std::atomic<int> watched_peer;
std::atomic<int> seen_of_peer;

void close_it_and_wait_for_the_peer(int) {
    ::close(changed.load());
    pollfd one{watched_peer.load(), POLLIN | POLLRDHUP, 0};
    ::poll(&one, 1, 5000);
    seen_of_peer.store(one.revents);
    changes_made.fetch_add(1);
}

void closed_under(Pair& p, const std::string& what, long (*call)(int fd)) {
    watched_peer.store(p.a.fd());
    seen_of_peer.store(0);
    install_change(p.b, close_it_and_wait_for_the_peer);
    call_under_change(p.b, what, call);
    p.b.call("seen of the peer in the handler", [] { return long{seen_of_peer.load()}; });
}

}  // namespace

// The signal has ended the call before the handler begins: nothing is left that would hold the connection.
CASE_THAT(closed_by_a_handler_that_waits_for_the_peer, kBlocking | kOneProcess) {
    closed_under(p, "recv", receive_some);
}
CASE_THAT(closed_by_a_handler_that_waits_for_the_peer_under_recvmsg, kBlocking | kOneProcess) {
    closed_under(p, "recvmsg", receive_message);
}
CASE_THAT(closed_by_a_handler_that_waits_for_the_peer_under_poll, kBlocking | kOneProcess) {
    closed_under(p, "poll", poll_for_bytes);
}

// A call that has taken something tells of it when a handler has run, whatever that asked for.
CASE_THAT(part_of_all_and_a_restarting_handler_of_two_kinds, kBlocking) {
    install(p.b, SIGUSR1, 0);
    install(p.b, SIGUSR2, SA_RESTART);
    for (const int mark : std::vector<int>{1, 10}) {
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, 1);
        Pending receiving = p.b.start_recv(12, MSG_WAITALL);
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, mark);
        p.a.send("hello");
        p.a.outq();  // until the kernel has really delivered it
        receiving.still_waiting();
        receiving.interrupt(SIGUSR2);
        receiving.finish();
        p.a.send("world");
        p.b.await_bytes(5);
        p.b.recv(100, MSG_DONTWAIT);
    }
}

CASE_THAT(made_nonblocking_by_a_restarting_handler, kBlocking) {
    install_change(p.b, [](int) {
        ::fcntl(changed.load(), F_SETFL, O_NONBLOCK);
        changes_made.fetch_add(1);
    });
    call_under_change(p.b, "recv", receive_some);
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.recv(10);
}

CASE_THAT(timed_by_a_restarting_handler, kBlocking) {
    install_change(p.b, [](int) {
        const timeval time{0, 30'000};
        ::setsockopt(changed.load(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
        changes_made.fetch_add(1);
    });
    call_under_change(p.b, "recv", receive_some);
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.recv(10);
}

CASE_THAT(replaced_by_a_restarting_handler, kBlocking) {
    p.b.quietly("pipe", [](Outcome&) {
        int pipe[2];
        if (::pipe(pipe) == 0 && ::write(pipe[1], "piped", 5) == 5)
            other.store(pipe[0]);
    });
    install_change(p.b, [](int) {
        ::dup2(other.load(), changed.load());
        changes_made.fetch_add(1);
    });
    call_under_change(p.b, "read", read_some);
    p.a.await_end();
    p.a.recv(10);
}

CASE_THAT(closed_by_a_thread_and_restarted, kBlocking) {
    // What another thread closes the call goes on with, until a handler makes the kernel begin it anew.
    install(p.b, SIGUSR1, SA_RESTART);
    Pending receiving = p.b.start_recv(10);
    p.b.close();
    receiving.still_waiting();
    receiving.interrupt(SIGUSR1);
    receiving.finish();
}

CASE_THAT(closed_by_a_thread_and_restarted_splice, kBlocking) {
    install(p.b, SIGUSR1, SA_RESTART);
    const auto [out, in] = make_pipe(p.script, p.b.actor(), "pipe");
    Pending splicing = p.b.start("splice", [from = p.b.fd(), to = in.fd()](Outcome& outcome) {
        outcome.value = ::splice(from, nullptr, to, nullptr, 100, 0);
    });
    p.b.close();
    splicing.still_waiting();
    splicing.interrupt(SIGUSR1);
    splicing.finish();
}

namespace {

constexpr int kImpatience = 300;  // milliseconds

/// Sends until the connection ends, which `wait` waits for where there is no room. @return the errno.
long send_until_it_ends(int fd, int flags, const std::function<bool()>& wait) {
    const std::string bytes(65536, 'x');
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < deadline) {
        if (::send(fd, bytes.data(), bytes.size(), flags | MSG_NOSIGNAL) >= 0)
            continue;
        if (errno != EAGAIN)
            return errno;
        if (!wait())
            break;
    }
    return -1;
}

void set_impatience(const End& end) { end.set(IPPROTO_TCP, TCP_USER_TIMEOUT, kImpatience); }

}  // namespace

// A peer that lives and reads nothing: TCP_USER_TIMEOUT says how long that may be so.
CASE(user_timeout_in_a_poll) {
    set_impatience(p.a);
    p.a.call("send until it ends", [fd = p.a.fd()] {
        return send_until_it_ends(fd, MSG_DONTWAIT, [fd] {
            pollfd entry{fd, POLLOUT, 0};
            return ::poll(&entry, 1, 10'000) == 1;
        });
    });
}

CASE(user_timeout_in_a_set) {
    set_impatience(p.a);
    p.a.call("send until it ends", [fd = p.a.fd()] {
        const int set = ::epoll_create1(0);
        epoll_event entry{EPOLLOUT | EPOLLIN | EPOLLET, {}};
        ::epoll_ctl(set, EPOLL_CTL_ADD, fd, &entry);
        const long result =
            send_until_it_ends(fd, MSG_DONTWAIT, [&] { return ::epoll_wait(set, &entry, 1, 10'000) == 1; });
        ::close(set);
        return result;
    });
}

CASE_THAT(user_timeout_in_a_send, kBlocking) {
    set_impatience(p.a);
    p.a.call("send until it ends",
             [fd = p.a.fd()] { return send_until_it_ends(fd, 0, [] { return true; }); });
}

CASE(user_timeout_with_unread_bytes) {
    // Its peer stands still and cannot see to what it sent before: that is there nevertheless.
    set_impatience(p.a);
    p.b.send("words");
    p.a.await_bytes(5);
    const auto tell_peer = [&p](const char* what, int signal) {
        p.a.call(what, [signal, peer = p.script.pid_of(p.b.actor())] {
            return peer == ::getpid() ? 0L : ::kill(peer, signal);  // it would be us that stand still
        });
    };
    tell_peer("halt", SIGSTOP);
    p.a.call("send until it ends", [fd = p.a.fd()] {
        return send_until_it_ends(fd, MSG_DONTWAIT, [fd] {
            pollfd entry{fd, POLLOUT, 0};
            return ::poll(&entry, 1, 10'000) == 1;
        });
    });
    p.a.recv(10);
    p.a.recv(10);
    tell_peer("go on", SIGCONT);
}

}  // namespace differential
