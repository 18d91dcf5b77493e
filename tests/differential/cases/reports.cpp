// What a socket says about itself: counts, names, options, errors.
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstring>
#include <linux/tcp.h>

#include "cases.h"

namespace differential {

namespace {

/// The byte counts; acknowledgements are waited for.
void byte_counts(const End& end) {
    end.call_with_text("TCP_INFO", [&](Outcome& outcome) {
        struct Info {
            unsigned char bytes[512];
        } info{};
        socklen_t size = sizeof info;
        uint64_t acked = 0;
        uint64_t received = 0;
        uint64_t sent = 0;
        await(
            [&] {
                outcome.value = ::getsockopt(end.fd(), IPPROTO_TCP, TCP_INFO, &info, &size);
                memcpy(&acked, info.bytes + offsetof(tcp_info, tcpi_bytes_acked), sizeof acked);
                memcpy(&received, info.bytes + offsetof(tcp_info, tcpi_bytes_received), sizeof received);
                memcpy(&sent, info.bytes + offsetof(tcp_info, tcpi_bytes_sent), sizeof sent);
                return acked >= sent;
            },
            500);
        outcome.text =
            format("sent %lu acked %lu received %lu state %u", static_cast<unsigned long>(sent),
                   static_cast<unsigned long>(acked), static_cast<unsigned long>(received), info.bytes[0]);
    });
}

}  // namespace

CASE(bytes_to_read) {
    p.b.fionread();
    p.a.send("12345");
    p.b.await_bytes(5);
    p.b.fionread();
    p.a.fionread();
    p.b.recv(2);
    p.b.fionread();
    p.b.recv(10, MSG_PEEK);
    p.b.fionread();
    p.a.send(pattern(5000));
    p.b.await_bytes(5003);
    p.b.fionread();
    p.b.recv(5003);
    p.b.fionread();
    p.a.send("x");
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.fionread();
    p.b.recv(10);
    p.b.fionread();
    p.a.fionread();
}

CASE(bytes_to_send) {
    p.a.outq();
    p.a.send("12345");
    p.b.await_bytes(5);
    p.b.recv(5);
    p.a.outq();
    p.b.outq();
    p.a.call_with_text("SIOCOUTQNSD", [&](Outcome& outcome) {
        int bytes = -1;
        outcome.value = ::ioctl(p.a.fd(), SIOCOUTQNSD, &bytes);
        outcome.text = std::to_string(bytes);
    });
    p.a.call_with_text("SIOCATMARK", [&](Outcome& outcome) {
        int mark = -1;
        outcome.value = ::ioctl(p.a.fd(), SIOCATMARK, &mark);
        outcome.text = std::to_string(mark);
    });
}

CASE(bytes_to_send_when_full) {
    const Outcome filled = p.a.fill();
    const auto show = [&] {
        p.a.call_with_text("what waits to be sent", [&](Outcome& outcome) {
            int queued = 0;
            int unsent = 0;
            tcp_info info{};
            socklen_t size = sizeof info;
            outcome.value = ::ioctl(p.a.fd(), SIOCOUTQ, &queued) + ::ioctl(p.a.fd(), SIOCOUTQNSD, &unsent) +
                            ::getsockopt(p.a.fd(), IPPROTO_TCP, TCP_INFO, &info, &size);
            outcome.text =
                format("SIOCOUTQ %s, SIOCOUTQNSD %s, notsent_bytes %s", queued > 0 ? "some" : "none",
                       unsent > 0 ? "some" : "none", info.tcpi_notsent_bytes > 0 ? "some" : "none");
        });
    };
    show();
    p.b.quietly("drain", [&](Outcome&) {
        std::string buffer(65536, 0);
        pollfd entry{p.b.fd(), POLLIN, 0};
        for (long left = filled.value; left > 0 && ::poll(&entry, 1, 5000) == 1;) {
            const long got = ::recv(p.b.fd(), buffer.data(), buffer.size(), 0);
            left -= got > 0 ? got : 0;
        }
    });
    p.a.outq();
    show();
}

CASE(bytes_counted) {
    byte_counts(p.a);
    p.a.send("12345");
    p.b.await_bytes(5);
    byte_counts(p.b);
    p.b.recv(5);
    byte_counts(p.a);
    byte_counts(p.b);
    p.b.send(pattern(10'000));
    p.a.await_bytes(10'000);
    p.a.recv(10'000);
    byte_counts(p.a);
    byte_counts(p.b);
}

// Who subtracts one count from the next sees no step back when the connection leaves the ring.
CASE(bytes_counted_on_after_leaving) {
    p.a.send(pattern(10'000));
    p.b.await_bytes(10'000);
    p.b.recv(10'000);
    p.b.send("some that stays unread");
    p.a.await_bytes(22);
    byte_counts(p.a);
    byte_counts(p.b);
    p.a.set(SOL_SOCKET, SO_TIMESTAMP, 1);
    p.a.await_bytes(22);
    byte_counts(p.a);
    p.a.recv(22);
    p.a.send("12345");
    p.b.await_bytes(5);
    p.b.recv(5);
    p.b.send(pattern(3000));
    p.a.await_bytes(3000);
    p.a.recv(3000);
    byte_counts(p.a);
    byte_counts(p.b);
}

// A socket's next connection counts from the beginning.
CASE(bytes_counted_anew_after_disconnecting) {
    p.a.send(pattern(10'000));
    p.b.await_bytes(10'000);
    p.b.recv(10'000);
    p.a.call("connect to nowhere", [&] {
        sockaddr nowhere{};
        nowhere.sa_family = AF_UNSPEC;
        return ::connect(p.a.fd(), &nowhere, sizeof nowhere);
    });
    byte_counts(p.a);
}

CASE(tcp_info_short) {
    p.a.send("x");
    p.b.await_bytes(1);
    for (const socklen_t room : {0U, 1U, 8U, 104U, 120U, 124U, 128U, 136U, 208U, 1000U}) {
        p.b.call_with_text(format("TCP_INFO into %u", room), [&](Outcome& outcome) {
            unsigned char info[1000] = {};
            socklen_t size = room;
            outcome.value = ::getsockopt(p.b.fd(), IPPROTO_TCP, TCP_INFO, info, &size);
            outcome.error = errno;
            uint64_t received = 0;
            memcpy(&received, info + offsetof(tcp_info, tcpi_bytes_received), sizeof received);
            outcome.text = format("%u, received %lu", size, static_cast<unsigned long>(received));
        });
    }
}

CASE(names) {
    p.a.getpeername();
    p.b.getpeername();
    p.a.call_with_text("names agree", [&](Outcome& outcome) {
        sockaddr_in6 name{};
        socklen_t size = sizeof name;
        outcome.value = ::getsockname(p.a.fd(), reinterpret_cast<sockaddr*>(&name), &size);
        outcome.text = format("%u bytes, family %d", size, name.sin6_family);
    });
}

CASE(options) {
    static constexpr struct {
        int level, name;
    } kOptions[] = {{SOL_SOCKET, SO_TYPE},           {SOL_SOCKET, SO_PROTOCOL},  {SOL_SOCKET, SO_DOMAIN},
                    {SOL_SOCKET, SO_ERROR},          {SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_REUSEADDR},
                    {SOL_SOCKET, SO_ACCEPTCONN},     {SOL_SOCKET, SO_RCVLOWAT},  {SOL_SOCKET, SO_SNDLOWAT},
                    {SOL_SOCKET, SO_OOBINLINE},      {SOL_SOCKET, SO_BROADCAST}, {SOL_SOCKET, SO_PRIORITY},
                    {IPPROTO_TCP, TCP_NODELAY},      {IPPROTO_TCP, TCP_CORK},    {IPPROTO_TCP, TCP_KEEPIDLE},
                    {IPPROTO_TCP, TCP_USER_TIMEOUT}, {SOL_SOCKET, 9999}};
    for (const auto& option : kOptions)
        p.a.get(option.level, option.name);
    p.a.set(IPPROTO_TCP, TCP_NODELAY, 1);
    p.a.set(SOL_SOCKET, SO_KEEPALIVE, 1);
    p.a.set(IPPROTO_TCP, TCP_KEEPIDLE, 100);
    p.a.set(SOL_SOCKET, SO_REUSEADDR, 1);
    p.a.get(IPPROTO_TCP, TCP_NODELAY);
    p.a.get(SOL_SOCKET, SO_KEEPALIVE);
    p.a.get(IPPROTO_TCP, TCP_KEEPIDLE);
    p.a.set(SOL_SOCKET, 9999, 1);
    p.a.send("still works");
    p.b.await_bytes(11);
    p.b.recv(100);
}

CASE(file_status) {
    p.a.call_with_text("fstat", [&](Outcome& outcome) {
        struct stat status {};
        outcome.value = ::fstat(p.a.fd(), &status);
        outcome.text = format("%o %ld", status.st_mode, static_cast<long>(status.st_size));
    });
}

CASE(urgent) {
    p.a.send("before");
    p.a.send("!", MSG_OOB);
    p.a.send("after");
    p.b.await_poll(POLLPRI);
    p.b.await_bytes(6);
    p.b.recv(6);
    p.b.recv(1, MSG_OOB);
    p.b.await_poll(POLLIN);
    p.b.recv(100);
}

}  // namespace differential
