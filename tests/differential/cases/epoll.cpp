// epoll: level-triggered, one-shot, exclusive; changes of interest; ends, waits, arguments.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>

#include <string>

#include "cases.h"

namespace differential {

namespace {
constexpr unsigned kAll = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;
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

}  // namespace differential
