// epoll, edge-triggered: what is an edge, and that none is lost or told twice, also where the lanes change.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/select.h>

#include <functional>
#include <string>

#include "cases.h"

namespace differential {

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

namespace {

void wait_for_the_edge_of_room(Pair& p) {
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

}  // namespace

CASE(epoll_edge_writable_again) { wait_for_the_edge_of_room(p); }

CASE(epoll_edge_writable_again_after_leaving) {
    p.b.set(SOL_SOCKET, SO_TIMESTAMP, 1);  // the room is the kernel's from here on
    wait_for_the_edge_of_room(p);
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
