// Bytes that a sender has held back: MSG_MORE, TCP_CORK, SPLICE_F_MORE. For 200 ms at most, so that a script
// can tell only that it happens at all.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "cases.h"

namespace differential {

namespace {

/// Takes `size` bytes, which are there.
void take(const End& end, size_t size) {
    end.await_bytes(size);
    end.quietly("take", [&end, size](Outcome& outcome) {
        char bytes[100];
        outcome.value = ::recv(end.fd(), bytes, size, MSG_DONTWAIT);
    });
}

/// Sends five bytes that `hold` has held back, while `unread` bytes wait at the reader, and then shows them
/// with `show`. In a round that takes too long the kernel shows them itself: it is enough to see once that it
/// did not.
void expect_held(const Pair& p, const End& from, const End& to, size_t unread,
                 const std::function<void(Outcome&)>& hold, const std::function<void(Outcome&)>& show) {
    if (p.setup.processes == Processes::kForkAfter)
        return;  // nothing is held where relatives had the connection, see docs/conformance.md
    bool held = false;
    for (int round = 0; round < 50 && !held; ++round) {
        from.quietly("send", [&](Outcome&) { ::send(from.fd(), "first", 5, MSG_NOSIGNAL); });
        take(to, 5 - unread);
        to.await_bytes(unread);
        from.quietly("hold", hold);
        held = to.quietly("look", [&](Outcome& outcome) {
                     pollfd entry{to.fd(), POLLIN, 0};
                     int waiting = -1;
                     char bytes[10];
                     ::ioctl(to.fd(), FIONREAD, &waiting);
                     const ssize_t seen = ::recv(to.fd(), bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
                     outcome.value = ::poll(&entry, 1, 0) == (unread != 0 ? 1 : 0) &&
                                     waiting == static_cast<int>(unread) &&
                                     seen == (unread != 0 ? static_cast<ssize_t>(unread) : -1);
                 }).value == 1;
        from.quietly("show", show);
        take(to, unread + 10);
    }
    to.call("held", [held] { return held ? 1 : 0; });
    from.send("and on");
    to.await_bytes(6);
    to.recv(20);
}

void cork(const End& end, bool on) {
    const int value = on ? 1 : 0;
    ::setsockopt(end.fd(), IPPROTO_TCP, TCP_CORK, &value, sizeof value);
}

}  // namespace

CASE(send_more_then_wait) {
    // MSG_MORE may hold bytes back, but not for ever.
    p.a.send("more", MSG_MORE);
    p.b.await_bytes(4);
    p.b.recv(10);
}

CASE(send_more_is_held) {
    expect_held(
        p, p.a, p.b, 0, [&](Outcome&) { ::send(p.a.fd(), "held ", 5, MSG_MORE | MSG_NOSIGNAL); },
        [&](Outcome&) { ::send(p.a.fd(), "shown", 5, MSG_NOSIGNAL); });
}

CASE(send_more_is_shown) {
    p.a.send("without delay ", MSG_MORE);
    p.a.set(IPPROTO_TCP, TCP_NODELAY, 1);
    p.b.await_bytes(14);
    p.b.recv(20);
    p.a.set(IPPROTO_TCP, TCP_NODELAY, 0);
    p.a.send("more ", MSG_MORE);
    p.a.send(std::string(100000, 'x'), MSG_MORE);
    p.b.await_bytes(60000);
    p.b.await_bytes(100005);
    p.b.drain(100005);
    p.a.send("seen by epoll", MSG_MORE);
    p.b.await_poll(POLLIN);
    p.b.recv(20);
    p.a.send("at the end", MSG_MORE);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recv(20);
    p.b.recv(20);
}

CASE(send_more_then_close) {
    p.a.send("at the end", MSG_MORE);
    p.a.close();
    p.b.await_end();
    p.b.recv(20);
    p.b.recv(20);
}

CASE(send_more_then_fork) {
    p.a.send("of a parent", MSG_MORE);
    p.a.call("fork", [&] {
        const pid_t child = ::fork();
        if (child == 0)
            ::_exit(0);
        int status = -1;
        ::waitpid(child, &status, 0);
        return status;
    });
    p.b.await_bytes(11);
    p.b.recv(20);
    p.a.send("of one that has been one", MSG_MORE);
    p.b.await_bytes(24);
    p.b.recv(30);
}

CASE(splice_more_is_held) {
    expect_held(
        p, p.a, p.b, 0,
        [&](Outcome&) {
            int ends[2];
            if (::pipe2(ends, O_CLOEXEC) != 0)
                return;
            if (::write(ends[1], "held ", 5) == 5)
                ::splice(ends[0], nullptr, p.a.fd(), nullptr, 5, SPLICE_F_MORE);
            ::close(ends[0]);
            ::close(ends[1]);
        },
        [&](Outcome&) { ::send(p.a.fd(), "shown", 5, MSG_NOSIGNAL); });
}

CASE(cork) {
    p.a.set(IPPROTO_TCP, TCP_CORK, 1);
    p.a.send("held ");
    p.a.send("back");
    p.a.set(IPPROTO_TCP, TCP_CORK, 0);
    p.b.await_bytes(9);
    p.b.recv(100);
}

CASE(cork_holds) {
    const auto hold = [&](Outcome&) {
        cork(p.a, true);
        ::send(p.a.fd(), "hel", 3, MSG_NOSIGNAL);
        ::send(p.a.fd(), "d ", 2, MSG_NOSIGNAL);
    };
    const auto show = [&](Outcome&) {
        ::send(p.a.fd(), "shown", 5, MSG_NOSIGNAL);
        cork(p.a, false);
    };
    expect_held(p, p.a, p.b, 0, hold, show);
    // Whatever lies before it.
    expect_held(p, p.a, p.b, 3, hold, show);
    expect_held(p, p.a, p.b, 5, hold, show);
}

CASE_THAT(cork_of_a_listener_holds, kBare) {
    p.before_listen = [](int fd) {
        const int on = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
    };
    p.establish();
    p.server.get(IPPROTO_TCP, TCP_CORK);
    p.client.get(IPPROTO_TCP, TCP_CORK);
    expect_held(
        p, p.server, p.client, 0, [&](Outcome&) { ::send(p.server.fd(), "held ", 5, MSG_NOSIGNAL); },
        [&](Outcome&) { ::send(p.server.fd(), "shown", 5, MSG_NOSIGNAL); });
}

CASE(cork_is_shown) {
    p.a.set(IPPROTO_TCP, TCP_CORK, 1);
    p.a.send("whatever the cork is ");
    p.a.set(IPPROTO_TCP, TCP_NODELAY, 1);
    p.b.await_bytes(21);
    p.b.recv(30);
    p.a.set(IPPROTO_TCP, TCP_NODELAY, 0);
    p.a.send("full ");
    p.a.send(std::string(300000, 'x'));
    p.b.drain(300005);
    p.a.send("seen by epoll");
    p.b.await_poll(POLLIN);
    p.b.recv(20);
    Pending receiving = p.b.start_recv(20);
    p.a.send("wakes");
    p.a.set(IPPROTO_TCP, TCP_CORK, 0);
    receiving.finish();
    p.a.set(IPPROTO_TCP, TCP_CORK, 1);
    p.a.send("at the end");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.recv(20);
    p.b.recv(20);
}

CASE(cork_then_close) {
    p.a.set(IPPROTO_TCP, TCP_CORK, 1);
    p.a.send("at the end");
    p.a.close();
    p.b.await_end();
    p.b.recv(20);
    p.b.recv(20);
}

CASE(cork_and_a_full_stream) {
    p.a.set(IPPROTO_TCP, TCP_CORK, 1);
    p.a.nonblocking(true);
    const Outcome filled = p.a.fill(1, 1000);
    p.b.await_bytes(1);
    p.b.call("everything came", [&] {
        std::string bytes(1 << 20, 0);
        long left = filled.value;
        while (left > 0) {
            const ssize_t got = ::recv(p.b.fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
            if (got > 0)
                left -= got;
            else if (got == 0 || errno != EAGAIN)
                break;
        }
        return left;
    });
    p.a.await_poll(POLLOUT);
    p.a.send("goes on");
    p.b.await_bytes(7);
    p.b.recv(20);
}

}  // namespace differential
