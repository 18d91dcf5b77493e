// epoll: streams beside ordinary descriptors and other streams in one set, whose turns and whose order
// counts.
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <string>

#include "cases.h"

namespace differential {

namespace {
constexpr int kEstablished = 1;  // TCP_ESTABLISHED, of a header that does not go together with linux/tcp.h
}  // namespace

CASE(epoll_mixed) {
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(reading, EPOLLIN);
    set.add(p.b, EPOLLIN);
    set.add(writing, EPOLLOUT | EPOLLET);
    set.wait();
    set.wait();
    Pending waiting = set.start_wait();
    writing.write("x");
    waiting.finish();
    p.a.send("y");
    p.b.await_bytes(1);
    set.wait();
    reading.read(1);
    set.wait();
    p.b.recv(1);
    Pending again = set.start_wait();
    p.a.send("z");
    again.finish();
    writing.close();
    set.wait();
    set.remove(reading);
    set.wait();
}

namespace {

/// The client's port on an address that nobody else uses: both ends know it.
sockaddr_in elsewhere(const End& end, bool of_client) {
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    auto* const address = reinterpret_cast<sockaddr*>(&name);
    (void)(of_client ? ::getsockname(end.fd(), address, &size) : ::getpeername(end.fd(), address, &size));
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = htonl(0x7f00004d);
    place.sin_port = reinterpret_cast<sockaddr_in*>(&name)->sin_port;  // at the same place for both families
    return place;
}

}  // namespace

namespace {

/// One thread says something elsewhere, and then sends on a connection: who waits for both hears of what was
/// said elsewhere first. `leaves`: and left the ring before, while the other end watched.
void tell_in_the_senders_order(Pair& p, bool leaves = false) {
    constexpr uint64_t kListener = 77;
    constexpr uint64_t kAccepted = 78;
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    int listener = -1;
    int accepted = -1;
    int other = -1;
    const auto watch = [&](int fd, uint64_t data) {
        epoll_event wanted{EPOLLIN, {}};
        wanted.data.u64 = data;
        return ::epoll_ctl(set.end().fd(), EPOLL_CTL_ADD, fd, &wanted);
    };
    const auto told_of = [&](const char* what, int timeout) {
        p.b.call_with_text(what, [&](Outcome& outcome) {
            epoll_event events[4];
            outcome.value = ::epoll_wait(set.end().fd(), events, 4, timeout);
            for (long event = 0; event < outcome.value; ++event)
                outcome.text += events[event].data.u64 == kListener   ? "listener "
                                : events[event].data.u64 == kAccepted ? "accepted "
                                                                      : "connection ";
        });
    };
    const auto then_here = [&](const char* what, const std::function<long()>& elsewhere_first) {
        p.a.call(what, [&]() -> long {
            const long result = elsewhere_first();
            return result < 0 ? result : ::send(p.a.fd(), "x", 1, 0);
        });
        p.b.await_bytes(1);
        told_of("what it is told of", 1000);
        p.b.recv(1);
        told_of("what is left", 0);
    };
    p.b.call("listens as well", [&] {
        const sockaddr_in place = elsewhere(p.b, p.setup.swapped);
        listener = ::socket(AF_INET, SOCK_STREAM, 0);
        return ::bind(listener, reinterpret_cast<const sockaddr*>(&place), sizeof place) +
               ::listen(listener, 8) + watch(listener, kListener);
    });
    if (leaves) {
        told_of("is told of nothing", 0);
        p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    }
    for (int i = 0; i < 3; ++i)
        then_here("connects there, and sends here", [&] {
            const sockaddr_in place = elsewhere(p.a, !p.setup.swapped);
            other = ::socket(AF_INET, SOCK_STREAM, 0);
            (void)opt_in(other);  // the listener has not: it stays on the kernel lane
            return ::connect(other, reinterpret_cast<const sockaddr*>(&place), sizeof place);
        });
    p.b.call("accepts the last one", [&] {
        for (int i = 0; i < 3; ++i)
            accepted = ::accept(listener, nullptr, nullptr);
        return watch(accepted, kAccepted);
    });
    then_here("sends there, and here", [&] { return ::send(other, "y", 1, 0); });
    p.b.call("receives", [&] {
        char byte;
        return ::recv(accepted, &byte, 1, 0);
    });
    then_here("ends there, and sends here", [&] { return ::shutdown(other, SHUT_WR); });
    p.b.call("takes the end", [&] { return ::close(accepted); });
}

}  // namespace

CASE(epoll_tells_in_the_senders_order) { tell_in_the_senders_order(p); }

CASE(epoll_tells_in_the_senders_order_after_leaving) {
    p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);  // both are the kernel's from here on
    tell_in_the_senders_order(p);
}

CASE(epoll_tells_in_the_order_of_a_sender_that_left) { tell_in_the_senders_order(p, true); }

namespace {

/// One thread ends one connection, sends on another one and ends that as well, both on the ring if the lane
/// has one: who waits for both hears of the first end first. `room` is for how many events each wait has.
void ends_in_the_senders_order(Pair& p, int room) {
    constexpr uint64_t kAccepted = 78;
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLRDHUP);
    int listener = -1;
    int accepted = -1;
    int other = -1;
    p.b.call("listens as well", [&] {
        const sockaddr_in place = elsewhere(p.b, p.setup.swapped);
        listener = ::socket(AF_INET, SOCK_STREAM, 0);
        if (p.lane.opts_in)
            (void)opt_in(listener);
        return ::bind(listener, reinterpret_cast<const sockaddr*>(&place), sizeof place) +
               ::listen(listener, 8);
    });
    p.a.call("connects there", [&] {
        const sockaddr_in place = elsewhere(p.a, !p.setup.swapped);
        other = ::socket(AF_INET, SOCK_STREAM, 0);
        if (p.lane.opts_in)
            (void)opt_in(other);
        return ::connect(other, reinterpret_cast<const sockaddr*>(&place), sizeof place);
    });
    p.b.call("accepts", [&] {
        accepted = ::accept(listener, nullptr, nullptr);
        epoll_event wanted{EPOLLIN | EPOLLRDHUP, {}};
        wanted.data.u64 = kAccepted;
        return ::epoll_ctl(set.end().fd(), EPOLL_CTL_ADD, accepted, &wanted);
    });
    const auto exchange = [](int fd, bool receives) {
        char byte = 'w';
        return receives ? ::recv(fd, &byte, 1, 0) : ::send(fd, &byte, 1, 0);
    };
    for (int round = 0; round < 4; ++round) {
        p.a.call("warms it up", [&] { return exchange(other, false); });
        // Told of it, so that what follows is in no new order.
        p.b.call("warms it up", [&] {
            epoll_event event;
            return ::epoll_wait(set.end().fd(), &event, 1, 1000) + exchange(accepted, true) +
                   exchange(accepted, false);
        });
        p.a.call("warms it up", [&] { return exchange(other, true); });
    }
    p.b.call_with_text("is told of nothing", [&](Outcome& outcome) {
        epoll_event event;
        outcome.value = ::epoll_wait(set.end().fd(), &event, 1, 0);
    });
    p.a.call("ends there, sends here and ends here", [&]() -> long {
        return ::shutdown(other, SHUT_WR) + ::send(p.a.fd(), "x", 1, 0) + ::shutdown(p.a.fd(), SHUT_WR);
    });
    p.b.await_bytes(1);
    p.b.call_with_text("is told of both", [&](Outcome& outcome) {
        for (int left = 2; left > 0; left -= room) {
            epoll_event events[4];
            const int found = ::epoll_wait(set.end().fd(), events, room, 1000);
            outcome.value += found;
            for (int event = 0; event < found; ++event)
                outcome.text +=
                    events[event].data.u64 == kAccepted ? "the one that ended " : "the other one ";
        }
    });
    p.b.call("closes", [&] { return ::close(accepted) + ::close(listener); });
    p.a.call("closes", [&] { return ::close(other); });
}

}  // namespace

CASE(epoll_tells_of_ends_in_the_senders_order) { ends_in_the_senders_order(p, 4); }

CASE(epoll_tells_of_ends_one_by_one) { ends_in_the_senders_order(p, 1); }

CASE(epoll_most_one_of_two) {
    // With room for one event, both are told in turn.
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(reading, EPOLLIN | EPOLLET);
    set.add(p.b, EPOLLIN | EPOLLET);
    writing.write("x");
    p.a.send("y");
    p.b.await_bytes(1);
    p.b.call_with_text("two waits for one event each", [&](Outcome& outcome) {
        for (int i = 0; i < 2; ++i) {
            epoll_event event{};
            outcome.value += ::epoll_wait(set.end().fd(), &event, 1, 1000);
        }
    });
    set.wait();
}

namespace {

epoll_event waits_for(int fd) {
    epoll_event event{EPOLLIN, {}};
    event.data.fd = fd;
    return event;
}

/// A set of the stream, which has something to read and keeps it, and of an ordinary descriptor, which is
/// made ready again and again: the next wait tells of both. One call of the script, so that nothing else is
/// called in between.
struct Ordinary {
    int fd = -1;
    int other = -1;
};
void told_beside_bytes(const Pair& p, const std::string& what, Ordinary (*make)(), void (*make_ready)(int)) {
    p.a.send("unread");
    p.b.await_bytes(6);
    p.b.call(what, [&]() -> long {
        const Ordinary ordinary = make();
        const int set = ::epoll_create1(EPOLL_CLOEXEC);
        for (const int fd : {p.b.fd(), ordinary.fd}) {
            epoll_event event = waits_for(fd);
            if (::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0)
                return -1;
        }
        long told = 0;
        for (int i = 0; i < 200; ++i) {
            std::array<epoll_event, 4> events{};
            for (int quiet = 0; quiet < 3; ++quiet)
                ::epoll_wait(set, events.data(), events.size(), 1000);
            make_ready(ordinary.other);
            told += ::epoll_wait(set, events.data(), events.size(), 1000);
            std::array<char, 256> taken{};
            if (::read(ordinary.fd, taken.data(), taken.size()) <= 0)
                return -1;
        }
        for (const int fd : {set, ordinary.fd, ordinary.other})
            ::close(fd);
        return told;
    });
}

Ordinary own_pipe() {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0)
        return {};
    return {ends[0], ends[1]};
}

}  // namespace

CASE(epoll_own_write_beside_bytes) {
    told_beside_bytes(p, "writes", own_pipe, [](int fd) {
        if (::write(fd, "x", 1) != 1)
            ::close(fd);
    });
}

CASE(epoll_own_pages_beside_bytes) {
    told_beside_bytes(p, "vmsplices", own_pipe, [](int fd) {
        char byte = 'x';
        const iovec part{&byte, 1};
        if (::vmsplice(fd, &part, 1, 0) != 1)
            ::close(fd);
    });
}

CASE(epoll_own_signal_beside_bytes) {
    told_beside_bytes(
        p, "signals",
        []() -> Ordinary {
            sigset_t mask;
            sigemptyset(&mask);
            sigaddset(&mask, SIGUSR2);
            ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
            return {::signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC), -1};
        },
        [](int) { ::pthread_kill(::pthread_self(), SIGUSR2); });
}

CASE(epoll_own_changes_beside_bytes) {
    // The same for calls that change a pipe or a connection on the kernel's lane.
    p.a.send("unread");
    p.b.await_bytes(6);
    const auto tells = [&](int fd, uint32_t events, const std::function<void()>& change) {
        const int set = ::epoll_create1(EPOLL_CLOEXEC);
        epoll_event of_the_stream = waits_for(p.b.fd());
        epoll_event of_the_other = waits_for(fd);
        of_the_other.events = events;
        ::epoll_ctl(set, EPOLL_CTL_ADD, p.b.fd(), &of_the_stream);
        ::epoll_ctl(set, EPOLL_CTL_ADD, fd, &of_the_other);
        std::array<epoll_event, 4> found{};
        for (int quiet = 0; quiet < 3; ++quiet)
            ::epoll_wait(set, found.data(), found.size(), 1000);
        change();
        const int told = ::epoll_wait(set, found.data(), found.size(), 1000);
        ::close(set);
        return told;
    };
    constexpr int kRounds = 50;
    p.b.call("a pipe that grows", [&] {
        long told = 0;
        for (int i = 0; i < kRounds; ++i) {
            const Ordinary pipe = own_pipe();
            const std::array<char, 4096> page{};
            while (::write(pipe.other, page.data(), page.size()) > 0) {
            }
            told += tells(pipe.other, EPOLLOUT, [&] { ::fcntl(pipe.other, F_SETPIPE_SZ, 1 << 17); });
            ::close(pipe.fd);
            ::close(pipe.other);
        }
        return told;
    });
    p.b.call("stdio that writes at its end", [&] {
        long told = 0;
        for (int i = 0; i < kRounds; ++i) {
            const Ordinary pipe = own_pipe();
            FILE* const file = ::fdopen(pipe.other, "w");
            std::fputc('x', file);
            told += tells(pipe.fd, EPOLLIN, [&] { std::fflush(file); });
            std::fclose(file);
            ::close(pipe.fd);
        }
        return told;
    });
    p.b.call("a range that is closed", [&] {
        long told = 0;
        for (int i = 0; i < kRounds; ++i) {
            const Ordinary pipe = own_pipe();
            const auto other = static_cast<unsigned>(pipe.other);
            told += tells(pipe.fd, EPOLLIN, [&] { ::close_range(other, other, 0); });
            ::close(pipe.fd);
        }
        return told;
    });
}

CASE(epoll_most_one_of_two_that_stay) {
    // Nothing is taken away, and neither keeps the other from being told.
    p.a.send("unread");
    p.b.await_bytes(6);
    p.b.call("waits for one event each, half of them of the stream", [&]() -> long {
        const Ordinary pipe = own_pipe();
        const int set = ::epoll_create1(EPOLL_CLOEXEC);
        for (const int fd : {p.b.fd(), pipe.fd}) {
            epoll_event event = waits_for(fd);
            if (::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0)
                return -1;
        }
        if (::write(pipe.other, "x", 1) != 1)
            return -1;
        long of_the_stream = 0;
        for (int i = 0; i < 100; ++i) {
            epoll_event event{};
            if (::epoll_wait(set, &event, 1, 1000) != 1)
                return -1;
            of_the_stream += event.data.fd == p.b.fd() ? 1 : 0;
        }
        for (const int fd : {set, pipe.fd, pipe.other})
            ::close(fd);
        return of_the_stream;
    });
}

CASE_THAT(epoll_end_beside_bytes, kOneProcess) {
    // The end comes over the kernel's connection and the bytes do not: one wait tells of both.
    Pair other(p.script, p.setup, p.lane);
    other.establish();
    other.b.rename("other");
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    set.add(other.b, EPOLLIN | EPOLLRDHUP);
    p.a.send("unread");
    p.b.await_bytes(6);
    set.wait();
    set.wait();
    other.a.close();
    other.b.quietly("its state", [&](Outcome&) {
        // poll would tell more than that the end is there.
        tcp_info info{};
        do {
            socklen_t size = sizeof info;
            ::getsockopt(other.b.fd(), IPPROTO_TCP, TCP_INFO, &info, &size);
        } while (info.tcpi_state == kEstablished);
    });
    set.wait();
}

namespace {

/// A descriptor beside the stream in its set: how this thread makes it ready, and takes that back.
struct Neighbour {
    const char* name;
    int fd;
    std::function<void()> make_ready;
    std::function<void()> take_back;
};

/// While the stream is readable all the time: how often a wait did not tell of the neighbour too, which had
/// become ready just before. Two waits in between find nothing else, as in a loop that is busy.
long untold(const End& stream, const Neighbour& neighbour) {
    const int set = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{EPOLLIN, {}};
    event.data.fd = stream.fd();
    ::epoll_ctl(set, EPOLL_CTL_ADD, stream.fd(), &event);
    event.data.fd = neighbour.fd;
    if (::epoll_ctl(set, EPOLL_CTL_ADD, neighbour.fd, &event) != 0)
        return -1;
    long missed = 0;
    for (int round = 0; round < 300; ++round) {
        epoll_event events[4];
        ::epoll_wait(set, events, 4, 0);
        ::epoll_wait(set, events, 4, 0);
        neighbour.make_ready();
        missed += ::epoll_wait(set, events, 4, 0) == 2 ? 0 : 1;
        neighbour.take_back();
    }
    ::close(set);
    return missed;
}

}  // namespace

// What a thread has made ready itself it hears of at once, however busy the set's streams are.
CASE(epoll_tells_of_what_was_just_made_ready) {
    p.a.send("unread");
    p.b.await_bytes(6);
    const auto show = [&](const Neighbour& neighbour) {
        p.b.call(std::string("rounds without ") + neighbour.name, [&] { return untold(p.b, neighbour); });
    };
    char bytes[64];
    const auto take = [&](int fd) { return [&bytes, fd] { (void)!::read(fd, bytes, sizeof bytes); }; };
    int pipe[2];
    int local[2];
    if (::pipe(pipe) != 0 || ::socketpair(AF_UNIX, SOCK_STREAM, 0, local) != 0)
        return;
    const iovec part{bytes, 1};
    show({"a pipe", pipe[0], [&] { (void)!::write(pipe[1], "x", 1); }, take(pipe[0])});
    show({"vmsplice", pipe[0], [&] { ::vmsplice(pipe[1], &part, 1, 0); }, take(pipe[0])});
    show({"a local socket", local[0], [&] { ::send(local[1], "x", 1, 0); }, take(local[0])});
    show({"sendmsg", local[0],
          [&] {
              msghdr message{};
              message.msg_iov = const_cast<iovec*>(&part);
              message.msg_iovlen = 1;
              ::sendmsg(local[1], &message, 0);
          },
          take(local[0])});

    const int event = ::eventfd(0, EFD_CLOEXEC);
    show({"an eventfd", event, [&] { ::eventfd_write(event, 1); }, take(event)});

    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    (void)::bind(listener, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listener, 16);
    ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    int caller = -1;
    show({"a listener", listener,
          [&] {
              caller = ::socket(AF_INET, SOCK_STREAM, 0);
              (void)::connect(caller, reinterpret_cast<sockaddr*>(&address), sizeof address);
          },
          [&] {
              ::close(::accept(listener, nullptr, nullptr));
              ::close(caller);
          }});
    caller = ::socket(AF_INET, SOCK_STREAM, 0);
    (void)::connect(caller, reinterpret_cast<sockaddr*>(&address), sizeof address);
    const int called = ::accept(listener, nullptr, nullptr);
    show({"another connection", called, [&] { ::send(caller, "x", 1, 0); }, take(called)});
    for (const int fd : {caller, called, listener, local[0], local[1]})
        ::close(fd);

    sigset_t signals;
    sigset_t before;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGUSR2);
    ::pthread_sigmask(SIG_BLOCK, &signals, &before);
    const int told = ::signalfd(-1, &signals, SFD_CLOEXEC);
    show({"a signal", told, [&] { ::raise(SIGUSR2); },
          [&] {
              signalfd_siginfo info;
              (void)!::read(told, &info, sizeof info);
          }});
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);

    char folder[] = "/tmp/loopfast-epoll-XXXXXX";
    if (::mkdtemp(folder) != nullptr) {
        const std::string inside = std::string(folder) + "/x";
        const int changes = ::inotify_init1(IN_CLOEXEC);
        ::inotify_add_watch(changes, folder, IN_CREATE);
        show({"a new file", changes, [&] { ::mkdir(inside.c_str(), 0700); },
              [&] {
                  char text[1024];
                  (void)!::read(changes, text, sizeof text);
                  ::rmdir(inside.c_str());
              }});
        ::close(changes);
        ::rmdir(folder);
    }

    FILE* const file = ::fdopen(pipe[1], "w");
    show({"stdio", pipe[0],
          [&] {
              ::fputc('x', file);
              ::fflush(file);
          },
          take(pipe[0])});
    ::fclose(file);
    for (const int fd : {pipe[0], event, told})
        ::close(fd);
}

}  // namespace differential
