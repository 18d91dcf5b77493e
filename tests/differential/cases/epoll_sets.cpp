// epoll: sets in sets, many sets, duplicates, sets that are passed on and inherited.
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "cases.h"

namespace differential {

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

CASE(epoll_duplicate_of_the_set_after_leaving) {
    // Time stamps are the kernel's: the entry goes back into its set, which has another number now.
    EpollSet set(p.script, p.b.actor(), "set");
    set.add(p.b, EPOLLIN);
    const End copy = set.end().dup("copy");
    set.end().close();
    EpollSet other(p.script, p.b.actor(), "other");  // most likely under the number that was closed
    p.b.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    p.a.send("x");
    p.b.await_bytes(1);
    other.wait();
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

}  // namespace differential
