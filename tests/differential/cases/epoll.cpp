// epoll: level, edge, one-shot, exclusive; changes of interest; nested, shared and mixed sets.
#include <linux/tcp.h>
#include <netinet/in.h>

#include "cases.h"

namespace differential {

namespace {
constexpr unsigned kAll = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;
}

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

}  // namespace differential
