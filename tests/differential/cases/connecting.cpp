// Connecting: accept's flags, connects that do not block, refusals, bytes sent before they are accepted.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "cases.h"

namespace differential {

namespace {

/// Both processes where there are two, and a listener.
void prepare(Pair& p) {
    if (p.setup.processes == Processes::kForkBefore || p.setup.processes == Processes::kUsers)
        p.script.fork(kClient, kServer);
    p.listen();
    p.make_client();
}

void talk(const Pair& p) {
    for (int i = 0; i < 3; ++i) {
        p.client.send("from the client");
        p.server.await_bytes(15);
        p.server.recv(100);
        p.server.send("from the server");
        p.client.await_bytes(15);
        p.client.recv(100);
    }
}

}  // namespace

CASE_THAT(accept_flags, kBare) {
    p.accept_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    p.establish();
    p.server.getfl();
    p.server.call("F_GETFD", [&] { return ::fcntl(p.server.fd(), F_GETFD); });
    p.server.recv(1, 0);
    p.client.getfl();
    talk(p);
}

CASE_THAT(accept_does_not_inherit_nonblocking, kBare) {
    p.before_listen = [](int fd) { ::fcntl(fd, F_SETFL, O_RDWR); };
    p.establish();
    p.listener.nonblocking(true);
    p.server.getfl();
    p.listener.call("accept when there is nobody",
                    [&] { return ::accept(p.listener.fd(), nullptr, nullptr); });
    p.listener.call("accept4 with odd flags",
                    [&] { return ::accept4(p.listener.fd(), nullptr, nullptr, 12345); });
}

CASE_THAT(all_numbers_of_a_lowered_hard_limit, kBare) {
    // As servers do that allow themselves as many as they were told of connections, and wait for the last
    // one.
    constexpr rlim_t kLimit = 300;
    prepare(p);
    p.client.call("lowers its hard limit", [] {
        const rlimit limit{kLimit, kLimit};
        return ::setrlimit(RLIMIT_NOFILE, &limit);
    });
    p.connect();
    p.accept();
    p.take_sides();
    for (int i = 0; i < 10; ++i)
        talk(p);
    p.client.call("numbers that it cannot have", [&]() -> long {
        std::array<bool, kLimit> own{};
        for (int fd = 0; fd < static_cast<int>(kLimit); ++fd)
            own[fd] = ::fcntl(fd, F_GETFD) < 0;
        long missing = 0;
        while (::dup(p.client.fd()) >= 0) {
        }
        for (int fd = 0; fd < static_cast<int>(kLimit); ++fd) {
            missing += ::fcntl(fd, F_GETFD) < 0 ? 1 : 0;
            if (own[fd])
                ::close(fd);
        }
        return missing;
    });
    p.client.call("may raise it again", [] {
        rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_max += 100;
        return ::setrlimit(RLIMIT_NOFILE, &limit);
    });
    talk(p);
}

CASE_THAT(accept_tells_the_peer, kBare) {
    prepare(p);
    p.connect();
    p.listener.call_with_text("accept", [&](Outcome& outcome) {
        sockaddr_storage address;
        socklen_t size = sizeof address;
        const int fd = ::accept(p.listener.fd(), reinterpret_cast<sockaddr*>(&address), &size);
        outcome.value = fd < 0 ? -1 : 0;
        outcome.text = format("family %d, %u bytes", address.ss_family, size);
    });
    p.listener.call("accept, no room for the address", [&] {
        socklen_t size = 0;
        sockaddr_storage address;
        p.listener.fd();
        ::fcntl(p.listener.fd(), F_SETFL, O_NONBLOCK);
        return ::accept(p.listener.fd(), reinterpret_cast<sockaddr*>(&address), &size);
    });
}

CASE_THAT(connect_without_blocking, kBare) {
    p.before_connect = [](int fd) { ::fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK); };
    prepare(p);
    const Outcome first = p.connect();
    p.client.call("connect was", [&] { return first.value == 0 || first.error == EINPROGRESS; });
    p.client.await_poll(POLLOUT);
    p.client.get(SOL_SOCKET, SO_ERROR);
    const Outcome second = p.connect();
    p.client.call("connect again", [&] {
        errno = second.error;
        return second.value;
    });
    const Outcome third = p.connect();
    p.client.call("and again", [&] {
        errno = third.error;
        return third.value;
    });
    p.accept();
    p.take_sides();
    talk(p);
}

CASE_THAT(connect_refused, kBare) {
    prepare(p);
    p.listener.close();
    const Outcome refused = p.connect();
    p.client.call("refused", [&] {
        errno = refused.error;
        return refused.value;
    });
    p.client.poll(POLLIN | POLLOUT | POLLRDHUP);
    p.client.send("x", MSG_NOSIGNAL);
    p.client.recv(1, MSG_DONTWAIT);
}

CASE_THAT(use_before_connecting, kBare) {
    prepare(p);
    p.client.send("x", MSG_NOSIGNAL);
    p.client.recv(1, MSG_DONTWAIT);
    p.client.poll(POLLIN | POLLOUT | POLLRDHUP);
    p.client.fionread();
    p.client.getpeername();
    p.listener.send("x", MSG_NOSIGNAL);
    p.listener.recv(1, MSG_DONTWAIT);
    p.listener.poll(POLLIN | POLLOUT);
    p.connect();
    p.listener.await_poll(POLLIN);
    p.listener.poll(POLLIN | POLLOUT);
    p.listener.fionread();
    p.accept();
    p.take_sides();
    talk(p);
}

CASE_THAT(bytes_before_accept, kBare) {
    prepare(p);
    p.connect();
    p.client.send("early ");
    p.client.send("bytes");
    p.accept();
    p.server.await_bytes(11);
    p.server.recv(100);
    p.take_sides();
    talk(p);
}

CASE_THAT(closed_before_accept, kBare) {
    prepare(p);
    p.connect();
    p.client.send("hello and goodbye");
    p.client.close();
    p.accept();
    p.server.await_end();
    p.server.recv(100);
    p.server.recv(100);
}

CASE_THAT(much_before_accept, kBare) {
    prepare(p);
    p.connect();
    Pending sending = p.client.start_send(pattern(700'000, 6));
    p.accept();
    p.server.drain(700'000);
    sending.finish();
    p.take_sides();
    talk(p);
}

CASE_THAT(only_client_opts_in, kBare) {
    p.server_opts_in = false;
    if (p.lane.warm)
        return;  // it is not to be fused
    p.establish();
    talk(p);
}

CASE_THAT(only_server_opts_in, kBare) {
    p.client_opts_in = false;
    if (p.lane.warm)
        return;
    p.establish();
    talk(p);
}

CASE_THAT(accepting_server_forks_at_once, kBare) {
    // The classic server: the child talks, the parent closes its copy.
    prepare(p);
    p.connect();
    p.accept();
    const Actor child = p.script.fork(kServer);
    p.server.close();
    p.server = p.server.in(child, "child");
    talk(p);
    p.observe(p.client, "end");
    p.server.close();
    p.client.await_end();
    p.client.recv(1);
}

CASE_THAT(connect_again_after_reset, kBare) {
    prepare(p);
    p.connect();
    p.accept();
    p.take_sides();
    talk(p);
    p.server.reset();
    p.client.await_poll(POLLERR);
    p.client.recv(1);
    // The same socket, connected anew.
    const Outcome again = p.connect();
    p.client.call("again", [&] {
        errno = again.error;
        return again.value;
    });
    if (!again.ok())
        return;
    p.accept();
    talk(p);
}

CASE_THAT(shutdown_of_a_connection_under_way, kBare) {
    prepare(p);
    p.client.nonblocking(true);
    p.connect();
    p.client.await_poll(POLLOUT);
    p.client.call("shutdown", [&] { return ::shutdown(p.client.fd(), SHUT_WR); });
    p.accept();
    p.server.await_end();
    p.server.recv(1);
}

CASE_THAT(fast_open, kBare) {
    p.before_listen = [](int fd) {
        const int queue = 5;
        ::setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof queue);
    };
    prepare(p);
    p.client.set(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
    const Outcome outcome = p.connect();
    p.client.call("connect", [&] { return outcome.value; });
    p.client.send("in the first segment, perhaps");
    p.accept();
    p.server.await_bytes(29);
    p.server.recv(100);
    p.take_sides();
    talk(p);
    talk(p);
}

// A send that connects as well.
CASE_THAT(fast_open_by_sending, kBare) {
    p.before_listen = [](int fd) {
        const int queue = 5;
        ::setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof queue);
    };
    prepare(p);
    const Outcome outcome = p.send_and_connect("in the first segment");
    p.client.call("send and connect", [&] { return outcome.value; });
    p.accept();
    p.server.await_bytes(20);
    p.server.recv(100);
    p.take_sides();
    talk(p);
    talk(p);
}

CASE_THAT(deferred_accept, kBare) {
    p.before_listen = [](int fd) {
        const int seconds = 5;
        ::setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);
    };
    prepare(p);
    p.connect();
    p.client.send("not before these");
    p.accept();
    p.server.await_bytes(16);
    p.server.recv(100);
    p.take_sides();
    talk(p);
}

CASE_THAT(connected_to_itself, kBare) {
    p.establish();
    p.client.call_with_text("one socket that is both ends", [&](Outcome& outcome) {
        const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in name{};
        name.sin_family = AF_INET;
        name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof name;
        outcome.value = ::bind(fd, reinterpret_cast<sockaddr*>(&name), size);
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
        if (p.lane.opts_in)
            opt_in(fd);
        outcome.value += ::connect(fd, reinterpret_cast<sockaddr*>(&name), size);
        for (int i = 0; i < 5; ++i) {
            char bytes[3000] = {};
            const ssize_t sent = ::send(fd, bytes, sizeof bytes, 0);
            ssize_t got = 0;
            while (got < sent)
                got += ::recv(fd, bytes, sizeof bytes, 0);
            outcome.text += format("%zd ", got);
        }
        ::shutdown(fd, SHUT_WR);
        char byte;
        outcome.text += format("end %zd", ::recv(fd, &byte, 1, 0));
        ::close(fd);
    });
}

CASE_THAT(both_connect_at_once, kBare) {
    p.establish();
    p.client.call_with_text("two sockets that connect to each other", [&](Outcome& outcome) {
        int fds[2];
        sockaddr_in names[2]{};
        for (int i = 0; i < 2; ++i) {
            fds[i] = ::socket(AF_INET, SOCK_STREAM, 0);
            names[i].sin_family = AF_INET;
            names[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            socklen_t size = sizeof names[i];
            (void)::bind(fds[i], reinterpret_cast<sockaddr*>(&names[i]), size);
            ::getsockname(fds[i], reinterpret_cast<sockaddr*>(&names[i]), &size);
            if (p.lane.opts_in)
                opt_in(fds[i]);
        }
        // Over loopback the first SYN is answered by a reset before the second one leaves.
        for (int i = 0; i < 2; ++i) {
            const int result = ::connect(fds[i], reinterpret_cast<sockaddr*>(&names[1 - i]), sizeof names[i]);
            outcome.text += result == 0 ? "connected " : error_name(errno) + " ";
        }
        ::close(fds[0]);
        ::close(fds[1]);
    });
}

CASE_THAT(multipath, kBare) {
    p.establish();
    p.client.call_with_text("MPTCP sockets", [&](Outcome& outcome) {
        const int listener = ::socket(AF_INET, SOCK_STREAM, 262);
        const int to = ::socket(AF_INET, SOCK_STREAM, 262);
        if (listener < 0 || to < 0) {
            outcome.text = error_name(errno);
            return;
        }
        sockaddr_in name{};
        name.sin_family = AF_INET;
        name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof name;
        (void)::bind(listener, reinterpret_cast<sockaddr*>(&name), size);
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size);
        ::listen(listener, 1);
        (void)::connect(to, reinterpret_cast<sockaddr*>(&name), size);
        const int from = ::accept(listener, nullptr, nullptr);
        for (int i = 0; i < 5; ++i) {
            char bytes[3000] = {};
            ssize_t got = 0;
            const ssize_t sent = ::send(to, bytes, sizeof bytes, 0);
            while (got < sent)
                got += ::recv(from, bytes, sizeof bytes, 0);
            outcome.text += format("%zd ", got);
        }
        ::close(to);
        char byte;
        outcome.text += format("end %zd", ::recv(from, &byte, 1, 0));
        ::close(from);
        ::close(listener);
    });
}

CASE_THAT(listener_closed_with_waiting_connections, kBare) {
    prepare(p);
    p.connect();
    p.client.send("nobody accepts this");
    p.listener.close();
    p.client.await_poll(POLLHUP);
    p.client.recv(1);
    p.client.send("x", MSG_NOSIGNAL);
}

}  // namespace differential
