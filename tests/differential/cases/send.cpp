// Sending: every call and flag, and streams that are full.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

namespace differential {

CASE(send_calls) {
    p.a.send("send ");
    p.a.write("write ");
    p.a.sendto("sendto ");
    p.a.writev({"wr", "", "ite", "v "});
    p.a.sendmsg({"send", "", "msg "});
    p.a.sendmmsg({"send", "mmsg "});
    p.a.pwritev2({"pwrite", "v2"}, -1, 0);
    p.b.await_bytes(47);
    p.b.recv(100);
}

CASE(send_nothing) {
    p.a.send("");
    p.a.write("");
    p.a.writev({});
    p.a.writev({"", ""});
    p.a.sendmsg({});
    p.a.sendmmsg({});
    p.a.sendmmsg({"", "x"});
    p.b.await_bytes(1);
    p.b.recv(10);
    p.b.poll(POLLIN | POLLOUT);
}

CASE(send_flags) {
    for (const int flags :
         std::vector<int>{MSG_DONTWAIT, MSG_NOSIGNAL, MSG_EOR, MSG_DONTROUTE, MSG_CONFIRM, 0x10000000})
        p.a.send("x", flags);
    p.a.send("means nothing here ", MSG_ERRQUEUE);
    p.a.send("held back ", MSG_MORE);
    p.a.send("no longer");
    p.b.await_bytes(44);
    p.b.recv(100);
}

CASE(send_to_an_address) {
    p.a.call("sendto with an address", [&] {
        sockaddr_storage address{};
        address.ss_family = AF_INET;
        return ::sendto(p.a.fd(), "abc", 3, 0, reinterpret_cast<sockaddr*>(&address), sizeof address);
    });
    p.b.await_bytes(3);
    p.b.recv(10);
}

CASE(write_at_an_offset) {
    p.a.pwritev2({"abc"}, 0, 0);
    p.a.pwritev2({"abc"}, -1, 0);
    p.a.pwritev2({"def"}, -1, RWF_NOWAIT);
    p.a.pwritev2({"ghi"}, -1, RWF_DSYNC);
    p.a.pwritev2({"jkl"}, -1, RWF_APPEND);
    p.a.pwritev2({"mno"}, -1, 0x40000000);
    p.a.call("pwrite", [&] { return ::pwrite(p.a.fd(), "pqr", 3, 0); });
    p.b.await_bytes(12);
    p.b.fionread();
    p.b.recv(100);
}

CASE(fill_and_drain) {
    const Outcome filled = p.a.fill();
    p.a.send("x", MSG_DONTWAIT);
    p.a.poll(POLLOUT);
    p.a.sendmsg({"x", "y"}, MSG_DONTWAIT);
    p.b.poll(POLLIN | POLLOUT);
    p.b.quietly("drain", [&](Outcome& outcome) {
        size_t left = static_cast<size_t>(filled.value);
        const std::string expected = pattern(65536, 1);
        std::string buffer(65536, 0);
        size_t at = 0;
        while (left > 0) {
            pollfd entry{p.b.fd(), POLLIN, 0};
            if (::poll(&entry, 1, 5000) != 1)
                break;
            const long got = ::recv(p.b.fd(), buffer.data(), std::min(left, buffer.size() - at % 65536), 0);
            if (got <= 0)
                break;
            for (long i = 0; i < got; ++i)
                if (buffer[static_cast<size_t>(i)] != expected[(at + static_cast<size_t>(i)) % 65536]) {
                    p.script.line("a byte is wrong");
                    left = static_cast<size_t>(got);
                    break;
                }
            at += static_cast<size_t>(got);
            left -= static_cast<size_t>(got);
        }
        outcome.value = static_cast<long>(left);
        p.script.line(format("left over: %zu", left));
    });
    p.a.await_poll(POLLOUT);
    p.a.send("y", MSG_DONTWAIT);
    p.b.await_bytes(1);
    p.b.recv(10);
}

CASE_THAT(send_waits_for_room, kBlocking) {
    const Outcome filled = p.a.fill();
    Pending sending = p.a.start_send(pattern(500'000, 3));
    sending.still_waiting();
    p.b.quietly("drain what filled it", [&](Outcome&) {
        std::string buffer(static_cast<size_t>(filled.value), 0);
        ::recv(p.b.fd(), buffer.data(), buffer.size(), MSG_WAITALL);
    });
    p.b.drain(500'000);
    sending.finish();
}

CASE_THAT(send_timeout, kBlocking) {
    p.a.set_time(SO_SNDTIMEO, 40);
    p.a.fill();
    p.a.send("x");
    p.a.write("x");
    p.a.writev({"x", "y"});
    p.a.sendmsg({"x"});
    p.a.send("x", MSG_DONTWAIT);
    p.a.set_time(SO_SNDTIMEO, 0);
    p.a.send("x", MSG_DONTWAIT);
}

CASE(small_buffers) {
    p.a.set(SOL_SOCKET, SO_SNDBUF, 4096);
    p.b.set(SOL_SOCKET, SO_RCVBUF, 4096);
    p.a.get(SOL_SOCKET, SO_SNDBUF);
    p.b.get(SOL_SOCKET, SO_RCVBUF);
    const Outcome filled = p.a.fill(1, 1000);
    p.a.quietly("not too much", [&](Outcome&) {
        p.script.line(filled.value < 600'000 ? "small" : format("large: %ld", filled.value));
    });
    p.a.send("x", MSG_DONTWAIT);
    p.b.drain(static_cast<size_t>(0));
}

CASE_THAT(small_buffers_before, kBare) {
    const auto shrink = [](int fd) {
        const int size = 8192;
        ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    };
    p.before_listen = shrink;
    p.before_connect = shrink;
    p.establish();
    p.a.get(SOL_SOCKET, SO_SNDBUF);
    p.b.get(SOL_SOCKET, SO_RCVBUF);
    const Outcome filled = p.a.fill(1, 1000);
    p.a.quietly("not too much", [&](Outcome&) {
        p.script.line(filled.value < 200'000 ? "small" : format("large: %ld", filled.value));
    });
    p.a.send("x", MSG_DONTWAIT);
}

CASE(large_buffers) {
    p.a.set(SOL_SOCKET, SO_SNDBUF, 1 << 20);
    p.b.set(SOL_SOCKET, SO_RCVBUF, 1 << 20);
    const Outcome filled = p.a.fill();
    p.a.quietly("enough", [&](Outcome&) {
        p.script.line(filled.value > 200'000 ? "large" : format("small: %ld", filled.value));
    });
}

CASE(default_buffers_take_a_megabyte) {
    // Programs write that much before anybody reads.
    Pending sending = p.a.start_send(pattern(1'000'000, 5));
    sending.finish();
    p.b.drain(100'000);
}

}  // namespace differential
