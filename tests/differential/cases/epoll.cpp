// epoll: level, edge, one-shot, exclusive; changes of interest; nested, shared and mixed sets.
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
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <functional>
#include <string>

#include "cases.h"

namespace differential {

namespace {
constexpr unsigned kAll = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;
constexpr int kEstablished = 1;  // TCP_ESTABLISHED, of a header that does not go together with linux/tcp.h
}  // namespace

CASE(epoll_level) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.wait();
    set.add(p.b, EPOLLIN);
    set.wait();
    p.a.send("xy");
    p.b.await_bytes(2);
    set.wait();
    set.wait();
    p.b.recv(1);
    set.wait();
    p.b.recv(1);
    set.wait();
    set.modify(p.b, kAll);
    set.wait();
    set.modify(p.b, 0);
    set.wait();
    p.a.send("z");
    p.b.await_bytes(1);
    set.wait();
    set.modify(p.b, EPOLLIN);
    set.wait();
    set.remove(p.b);
    set.wait();
    set.remove(p.b);
    set.modify(p.b, EPOLLIN);
    set.add(p.b, EPOLLIN);
    set.add(p.b, EPOLLIN);
    set.wait();
}

CASE(epoll_edge) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLOUT | EPOLLET);
    set.wait();
    set.wait();
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    set.wait();
    // New bytes are a new edge even if the old ones are unread.
    p.a.send("y");
    p.b.await_bytes(2);
    set.wait();
    set.wait();
    p.b.recv(10);
    set.wait();
    set.modify(p.b, EPOLLIN | EPOLLET);
    set.wait();
    p.a.send("z");
    p.b.await_bytes(1);
    set.modify(p.b, EPOLLIN | EPOLLET);
    set.wait();
    set.wait();
    set.modify(p.b, EPOLLIN | EPOLLET);
    set.wait();
    p.b.recv(1);
    p.a.send("1");
    p.b.await_bytes(1);
    p.b.recv(1);
    set.wait();
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    set.wait();
    set.wait();
}

CASE(epoll_edge_of_the_end) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLRDHUP | EPOLLET);
    set.wait();
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    set.wait();
    set.wait();
    p.b.shutdown(SHUT_WR);
    p.b.await_poll(POLLHUP);
    p.b.await_acknowledged_end();
    set.wait();
    set.wait();
}

CASE(epoll_edge_of_a_shutdown) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLOUT | EPOLLET);
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    set.wait();
    Pending waiting = set.start_wait();
    p.b.shutdown(SHUT_RD);
    waiting.finish();
    set.wait();
    p.b.shutdown(SHUT_RD);  // nothing new, and an edge all the same
    set.wait();
    set.wait();
    p.b.shutdown(SHUT_WR);
    p.a.await_end();
    set.wait();
    set.wait();
}

CASE(epoll_edge_of_a_collected_error) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLOUT | EPOLLET);
    p.b.send("unread");
    p.a.await_bytes(6);
    p.a.close();
    p.b.await_poll(POLLHUP);
    set.wait();
    p.b.get(SOL_SOCKET, SO_ERROR);
    set.wait();  // an error that goes away is no news
    p.b.recv(1);
    p.b.shutdown(SHUT_WR);  // one that fails is
    set.wait();
    set.wait();
}

CASE(epoll_edge_of_a_low_water_mark) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLET);
    EpollSet writing(p.script, p.b.actor(), "writing");
    writing.add(p.b, EPOLLOUT | EPOLLET);
    writing.wait();
    p.a.send("hello");
    p.b.await_bytes(5);
    set.wait();
    set.wait();
    for (const int bytes : {6, 5, 5, 1}) {
        p.b.set(SOL_SOCKET, SO_RCVLOWAT, bytes);
        set.wait();
        set.wait();
        writing.wait();
    }
}

CASE(epoll_oneshot_that_asks_for_nothing) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLONESHOT);
    for (int i = 0; i < 3; ++i) {
        p.a.send("hello");
        p.b.await_bytes(5);
        set.wait();
        p.b.recv(5);
        p.b.send("hello");
        p.a.await_bytes(5);
        p.a.recv(5);
    }
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    set.wait();
    p.b.shutdown(SHUT_WR);
    p.b.await_poll(POLLHUP);
    set.wait();
    set.wait();
}

CASE(epoll_entry_of_a_closed_descriptor) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLOUT | EPOLLET);
    const End other = p.b.dup("other");
    p.b.close();
    p.a.set(IPPROTO_IP, IP_MINTTL, 1);
    set.wait();
    p.a.send("hello");
    other.await_bytes(5);
    set.wait(1000);
    set.wait();
}

CASE(epoll_number_that_comes_back) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    const End other = p.b.dup("other");
    p.b.close();
    const End again = other.dup("again");  // under the number that the entry has
    other.close();
    p.a.send("x");
    again.await_bytes(1);
    set.wait();
    set.modify(again, EPOLLIN | EPOLLOUT);
    set.wait();
    again.set(IPPROTO_IP, IP_MINTTL, 1);
    set.wait();
    set.add(again, EPOLLIN);
    set.remove(again);
    set.wait();
}

CASE(epoll_edge_writable_again) {
    EpollSet set(p.script, p.a.actor(), "set");
    set.add(p.a, EPOLLOUT | EPOLLET);
    set.wait();
    const Outcome filled = p.a.fill();
    set.wait();
    p.b.quietly("drain", [&](Outcome&) {
        std::string buffer(1 << 20, 0);
        long left = filled.value;
        while (left > 0) {
            const long got = ::recv(p.b.fd(), buffer.data(), buffer.size(), 0);
            pollfd entry{p.b.fd(), POLLIN, 0};
            if (got < 0 && (errno != EAGAIN || ::poll(&entry, 1, 5000) != 1))
                break;
            left -= got > 0 ? got : 0;
        }
    });
    set.wait(5000);
    p.a.poll(POLLOUT, 5000);
}

namespace {

/// Sends little by little for as long as `writable` says so, which no send ever finds out by itself; then
/// the other end takes all of it.
void fill_and_drain_by(Pair& p, const char* name, const std::function<bool(int timeout)>& writable) {
    const Outcome filled = p.a.quietly(std::string("fill by ") + name, [&](Outcome& outcome) {
        const std::string some(4096, 'f');
        while (writable(0) || writable(30)) {
            const long sent = ::send(p.a.fd(), some.data(), some.size(), MSG_DONTWAIT);
            if (sent != static_cast<long>(some.size()))
                break;
            outcome.value += sent;
        }
    });
    p.b.quietly("drain", [&](Outcome&) {
        std::string buffer(1 << 20, 0);
        long left = filled.value;
        while (left > 0) {
            const long got = ::recv(p.b.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
            pollfd entry{p.b.fd(), POLLIN, 0};
            if (got < 0 && (errno != EAGAIN || ::poll(&entry, 1, 5000) != 1))
                break;
            left -= got > 0 ? got : 0;
        }
    });
}

}  // namespace

// Whoever asks and is told that there is no room makes the room, when it comes, an edge for everybody.
CASE(epoll_edge_after_a_poll_without_room) {
    EpollSet set(p.script, p.a.actor(), "set");
    set.add(p.a, EPOLLOUT | EPOLLET);
    set.wait();
    fill_and_drain_by(p, "poll", [&](int timeout) {
        pollfd one{p.a.fd(), POLLOUT, 0};
        return ::poll(&one, 1, timeout) == 1;
    });
    set.wait(5000);
}

CASE(epoll_edge_after_a_select_without_room) {
    EpollSet set(p.script, p.a.actor(), "set");
    set.add(p.a, EPOLLOUT | EPOLLET);
    set.wait();
    fill_and_drain_by(p, "select", [&](int timeout) {
        fd_set writing;
        FD_ZERO(&writing);
        FD_SET(p.a.fd(), &writing);
        timeval limit{0, timeout * 1000};
        return ::select(p.a.fd() + 1, nullptr, &writing, nullptr, &limit) == 1;
    });
    set.wait(5000);
}

CASE(epoll_edge_after_another_set_without_room) {
    EpollSet set(p.script, p.a.actor(), "set");
    set.add(p.a, EPOLLOUT | EPOLLET);
    set.wait();
    EpollSet level(p.script, p.a.actor(), "level");
    level.add(p.a, EPOLLOUT);
    fill_and_drain_by(p, "epoll", [&](int timeout) {
        epoll_event event;
        return ::epoll_wait(level.end().fd(), &event, 1, timeout) == 1;
    });
    set.wait(5000);
}

// A report without room for everything that is ready is followed by one that tells of the rest.
CASE(epoll_few_events_at_a_time) {
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLOUT);
    set.add(reading, EPOLLIN);
    p.a.send("unread");
    p.b.await_bytes(6);
    writing.write("x");
    for (const int most : {1, 1, 2})
        p.b.call("how many are told of, so many at a time: " + std::to_string(most), [&] {
            bool seen[2] = {};
            for (int round = 0; round < 100; ++round) {
                epoll_event events[2];
                const int count = ::epoll_wait(set.end().fd(), events, most, 0);
                for (int i = 0; i < count; ++i)
                    seen[(events[i].events & EPOLLOUT) != 0 ? 0 : 1] = true;
            }
            return (seen[0] ? 1 : 0) + (seen[1] ? 1 : 0);
        });
    set.wait();
}

CASE(epoll_oneshot) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLONESHOT);
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    set.wait();
    p.a.send("y");
    p.b.await_bytes(2);
    set.wait();
    set.modify(p.b, EPOLLIN | EPOLLONESHOT);
    set.wait();
    set.wait();
    p.b.recv(10);
    set.modify(p.b, EPOLLIN | EPOLLET | EPOLLONESHOT);
    set.wait();
    p.a.send("z");
    p.b.await_bytes(1);
    set.wait();
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    set.wait();
    set.modify(p.b, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT);
    set.wait();
    set.wait();
}

CASE(epoll_exclusive) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLEXCLUSIVE);
    set.modify(p.b, EPOLLIN);
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    set.remove(p.b);
    set.add(p.b, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT);
    set.add(p.b, EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP);
    set.add(p.b, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET);
    set.wait();
    set.modify(p.b, EPOLLIN | EPOLLEXCLUSIVE);
    set.wait();
}

CASE(epoll_endings) {
    EpollSet set(p.script, p.b.actor(), "set");
    EpollSet quiet(p.script, p.b.actor(), "quiet");
    set.add(p.b, kAll);
    quiet.add(p.b, 0);
    p.a.send("x");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    set.wait();
    quiet.wait();
    p.b.recv(1);
    set.wait();
    p.b.shutdown(SHUT_WR);
    p.b.await_poll(POLLHUP);
    set.wait();
    quiet.wait();
}

CASE(epoll_reset) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, kAll);
    set.wait();
    p.a.reset();
    p.b.await_poll(POLLERR);
    set.wait();
    p.b.recv(1);
    set.wait();
    set.remove(p.b);
    set.wait();
}

CASE(epoll_wakes_a_waiter) {
    for (const unsigned kind : std::vector<unsigned>{0, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE}) {
        EpollSet set(p.script, p.b.actor(), "set");
        set.add(p.b, EPOLLIN | kind);
        Pending waiting = set.start_wait();
        p.a.send("x");
        waiting.finish();
        p.b.recv(1);
        if (kind == EPOLLONESHOT)
            set.modify(p.b, EPOLLIN | kind);
        Pending again = set.start_wait(5000);
        p.a.send("y");
        again.finish();
        p.b.recv(1);
        set.end().close();
    }
}

CASE(epoll_waiter_and_endings) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLRDHUP);
    Pending waiting = set.start_wait();
    p.a.shutdown(SHUT_WR);
    waiting.finish();
    set.modify(p.b, 0);
    Pending hang_up = set.start_wait();
    p.b.shutdown(SHUT_WR);
    hang_up.finish();
}

CASE(epoll_interest_changes_while_waiting) {
    EpollSet set(p.script, p.b.actor(), "set");
    Pending waiting = set.start_wait();
    set.add(p.b, EPOLLOUT);
    waiting.finish();
    set.modify(p.b, EPOLLIN);
    Pending again = set.start_wait();
    set.modify(p.b, EPOLLIN | EPOLLOUT);
    again.finish();
    set.modify(p.b, EPOLLIN);
    Pending third = set.start_wait();
    p.a.send("x");
    third.finish();
}

CASE(epoll_timeouts) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    set.wait(5);
    set.pwait(5, nullptr);
    set.pwait2(3'000'000);
    set.pwait2(0);
    set.pwait2(2'000'000'000);
    p.a.send("x");
    p.b.await_bytes(1);
    set.pwait(-1, nullptr);
    set.pwait2(999'999'999);
    set.wait(-1, 1);
    set.wait(0, 0);
    set.wait(0, -1);
    set.end().call("epoll_wait into nowhere",
                   [&] { return ::epoll_wait(set.end().fd(), reinterpret_cast<epoll_event*>(16), 4, 0); });
    set.wait();
}

CASE(epoll_into_nowhere_takes_nothing) {
    // What could not be told is told by the next wait: an edge, and what a one-shot entry has.
    for (const uint32_t kind : {uint32_t{EPOLLET}, uint32_t{EPOLLONESHOT}}) {
        EpollSet set(p.script, p.b.actor(), kind == EPOLLET ? "edge" : "once");
        set.add(p.b, EPOLLIN | kind);
        const auto into_nowhere = [&](const char* name, int timeout) {
            set.end().call(name, [&] {
                return ::epoll_wait(set.end().fd(), reinterpret_cast<epoll_event*>(16), 4, timeout);
            });
        };
        into_nowhere("epoll_wait into nowhere, none", 0);
        into_nowhere("epoll_wait into nowhere, for a moment", 2);
        p.a.send("x");
        p.b.await_bytes(1);
        into_nowhere("epoll_wait into nowhere", -1);
        into_nowhere("epoll_wait into nowhere again", 0);
        set.wait();
        into_nowhere("epoll_wait into nowhere, told", 0);
        set.wait();
        p.b.recv(1);
        set.remove(p.b);
    }
}

CASE(epoll_room_ends_before_its_count) {
    // Two are ready; there is memory for half an event, then for one, of the four that are asked for.
    EpollSet set(p.script, p.b.actor(), "set");
    const End same = p.b.dup("same");
    set.add(p.b, EPOLLIN | EPOLLET);
    set.add(same, EPOLLIN | EPOLLET);
    p.a.send("x");
    p.b.await_bytes(1);
    for (const size_t room : {sizeof(epoll_event) / 2, sizeof(epoll_event), sizeof(epoll_event)})
        set.end().call("epoll_wait where memory ends", [&] {
            const size_t page = 4096;
            char* const memory = static_cast<char*>(
                mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            mprotect(memory + page, page, PROT_NONE);
            const int result =
                ::epoll_wait(set.end().fd(), reinterpret_cast<epoll_event*>(memory + page - room), 4, 0);
            const int error = errno;
            munmap(memory, 2 * page);
            errno = error;
            return result;
        });
    set.wait();
}

CASE(epoll_bad_arguments) {
    EpollSet set(p.script, p.b.actor(), "set");
    const End none(p.script, p.b.actor(), 50, "none");
    set.add(none, EPOLLIN);
    set.remove(none);
    set.add(set.end(), EPOLLIN);
    set.end().call("epoll_ctl, odd operation", [&] {
        epoll_event event{};
        return ::epoll_ctl(set.end().fd(), 77, p.b.fd(), &event);
    });
    set.end().call("epoll_ctl, no event",
                   [&] { return ::epoll_ctl(set.end().fd(), EPOLL_CTL_ADD, p.b.fd(), nullptr); });
    p.b.call("epoll_ctl on a stream", [&] {
        epoll_event event{};
        return ::epoll_ctl(p.b.fd(), EPOLL_CTL_ADD, p.b.fd(), &event);
    });
    p.b.call("epoll_wait on a stream", [&] {
        epoll_event event{};
        return ::epoll_wait(p.b.fd(), &event, 1, 0);
    });
    set.wait();
}

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

CASE(epoll_tells_in_the_senders_order) {
    // One thread says something elsewhere, and then sends on a connection: who waits for both hears of what
    // was said elsewhere first.
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

CASE(epoll_nested) {
    EpollSet inner(p.script, p.b.actor(), "inner");
    EpollSet outer(p.script, p.b.actor(), "outer");
    inner.add(p.b, EPOLLIN);
    outer.add(inner.end(), EPOLLIN);
    outer.wait();
    inner.end().poll(POLLIN);
    Pending waiting = outer.start_wait();
    p.a.send("x");
    waiting.finish();
    inner.end().poll(POLLIN);
    wait_for(Selector::kSelect, {{inner.end(), POLLIN}});
    inner.wait();
    p.b.recv(1);
    outer.wait();
    inner.end().poll(POLLIN);
    Pending polling = start_wait_for(Selector::kPoll, {{inner.end(), POLLIN}});
    p.a.send("y");
    polling.finish();
    outer.wait();
    p.b.recv(1);
    inner.remove(p.b);
    p.a.send("z");
    p.b.await_bytes(1);
    outer.wait();
}

CASE(epoll_nested_with_a_stream_that_ended) {
    // Bytes wait, and the peer is gone: the outer set tells of them, and then of the end.
    p.a.send("last words");
    p.b.await_bytes(10);
    p.a.close();
    p.b.await_end();
    EpollSet inner(p.script, p.b.actor(), "inner");
    EpollSet outer(p.script, p.b.actor(), "outer");
    inner.add(p.b, EPOLLIN);
    outer.add(inner.end(), EPOLLIN);
    outer.wait();
    inner.wait();
    p.b.recv(10);
    outer.wait();
    inner.wait();
    inner.remove(p.b);
    outer.wait();
    inner.add(p.b, EPOLLIN | EPOLLRDHUP);
    outer.wait();
    inner.wait();
}

CASE(epoll_nested_edge) {
    EpollSet inner(p.script, p.b.actor(), "inner");
    EpollSet outer(p.script, p.b.actor(), "outer");
    inner.add(p.b, EPOLLIN);
    outer.add(inner.end(), EPOLLIN | EPOLLET);
    p.a.send("x");
    p.b.await_bytes(1);
    outer.wait();
    outer.wait();
    p.a.send("y");
    p.b.await_bytes(2);
    outer.wait();
    inner.wait();
    p.b.recv(10);
}

CASE(epoll_many_sets) {
    EpollSet one(p.script, p.b.actor(), "one");
    EpollSet two(p.script, p.b.actor(), "two");
    one.add(p.b, EPOLLIN);
    two.add(p.b, EPOLLIN | EPOLLET);
    p.a.send("x");
    p.b.await_bytes(1);
    one.wait();
    two.wait();
    one.wait();
    two.wait();
    one.end().close();
    p.a.send("y");
    p.b.await_bytes(2);
    two.wait();
    Pending waiting = two.start_wait();
    p.a.send("z");
    waiting.finish();
}

CASE(epoll_duplicates) {
    EpollSet set(p.script, p.b.actor(), "set");
    const End copy = p.b.dup("copy");
    set.add(p.b, EPOLLIN);
    set.add(copy, EPOLLIN | EPOLLOUT);
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    // The registration outlives its descriptor as long as a duplicate is open.
    p.b.close();
    set.wait();
    set.remove(copy);
    set.wait();
    copy.close();
    set.wait();
}

CASE(epoll_closed_descriptor) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    p.b.close();
    set.wait();
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    writing.write("y");
    set.wait();
    set.add(reading, EPOLLIN);
    set.wait();
}

CASE(epoll_duplicate_of_the_set) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    const End copy = set.end().dup("copy");
    set.end().close();
    p.a.send("x");
    p.b.await_bytes(1);
    copy.call("epoll_wait on the copy", [&] {
        epoll_event event{};
        return ::epoll_wait(copy.fd(), &event, 1, 0);
    });
    copy.close();
    p.b.recv(1);
}

CASE(epoll_set_that_is_passed) {
    // As another process does that gets it: the number that comes back is not known as that of a set.
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    const Outcome number = set.end().quietly(
        "pass", [&](Outcome& outcome) { outcome.value = passed_descriptor(set.end().fd()); });
    const End other(p.script, p.b.actor(), static_cast<int>(number.value), "passed");
    p.a.send("x");
    p.b.await_bytes(1);
    other.call_with_text("epoll_wait on the passed one", [&](Outcome& outcome) {
        epoll_event event{};
        outcome.value = ::epoll_wait(other.fd(), &event, 1, 1000);
        outcome.text = event_names(event.events);
    });
    p.b.recv(1);
    other.close();
}

CASE(epoll_registered_before_connecting_bytes) {
    // Interest from before the hand-over goes on after it.
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLOUT | EPOLLET);
    set.wait();
    for (size_t bytes = 1; bytes <= 12; ++bytes) {
        p.a.send(std::string(bytes, 'x'));
        p.b.await_bytes(bytes);
        set.wait();
        set.wait();
        p.b.recv(100);
        p.b.send("answer");
        p.a.await_bytes(6);
        p.a.recv(100);
        set.wait();
    }
}

CASE_THAT(epoll_both_ends, kOneProcess) {
    EpollSet set(p.script, p.a.actor(), "set");
    set.add(p.a, EPOLLIN);
    set.add(p.b, EPOLLIN);
    p.a.send("x");
    p.b.await_bytes(1);
    set.wait();
    p.b.send("y");
    p.a.await_bytes(1);
    set.wait();
    p.b.recv(1);
    set.wait();
    p.a.recv(1);
    Pending waiting = set.start_wait();
    p.a.send("z");
    waiting.finish();
}

CASE(epoll_inherited) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    const Actor child = p.script.fork(p.b.actor());
    const End inherited = p.b.in(child, "b of the child");
    const End child_set = set.end().in(child, "set of the child");
    p.a.send("x");
    p.b.await_bytes(1);
    child_set.call("epoll_wait", [&] {
        epoll_event event{};
        return ::epoll_wait(child_set.fd(), &event, 1, 1000);
    });
    set.wait(1000);
    inherited.recv(1);
    set.wait();
    p.script.exit(child);
    p.a.send("y");
    p.b.await_bytes(1);
    set.wait();
    p.b.recv(1);
}

namespace {

/// Something that only the kernel can do to this end: it is on the kernel lane from here on.
void to_kernel(const End& end) { end.set(IPPROTO_IP, IP_MINTTL, 1); }

}  // namespace

CASE(epoll_edge_of_a_peer_in_the_kernel) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLET);
    p.a.send("one");
    p.b.await_bytes(3);
    set.wait(1000);
    p.b.recv(100);
    to_kernel(p.a);
    for (int i = 0; i < 3; ++i) {
        p.a.send("more");
        p.b.await_bytes(4 + static_cast<size_t>(i));
        set.wait(1000);
        set.wait();
        p.b.recv(3);
    }
    p.b.drain(3);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    set.wait(1000);
    set.wait();
}

CASE(epoll_edge_of_an_end_in_the_kernel) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLOUT | EPOLLET);
    set.wait(1000);
    p.a.send("one");
    p.b.await_bytes(3);
    set.wait(1000);
    p.b.recv(100);
    to_kernel(p.b);
    p.b.send("out");
    p.a.await_bytes(3);
    for (int i = 0; i < 3; ++i) {
        p.a.send("more");
        p.b.await_bytes(4);
        set.wait(1000);
        p.b.recv(100);
    }
}

CASE(epoll_level_and_lanes) {
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN | EPOLLRDHUP);
    p.a.send("in the ring");
    p.b.await_bytes(11);
    to_kernel(p.a);
    p.a.send("behind it");
    p.b.await_bytes(20);
    set.await_ready(p.b);
    set.wait();
    p.b.recv(11);
    set.wait();
    p.b.recv(100);
    set.wait();
    to_kernel(p.b);
    set.wait();
    p.a.send("again");
    p.b.await_bytes(5);
    set.await_ready(p.b);
    set.wait();
    Pending waiting = set.start_wait();
    p.b.recv(100);
    waiting.finish();
    Pending again = set.start_wait();
    p.a.send("x");
    again.finish();
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
