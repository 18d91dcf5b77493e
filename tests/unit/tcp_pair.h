// A kernel TCP connection over loopback, both ends in this process.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace loopfast {

struct TcpPair {
    explicit TcpPair(int family = AF_INET) {
        sockaddr_in6 address{};
        socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof address;
        address.sin6_family = static_cast<sa_family_t>(family);
        if (family == AF_INET)
            reinterpret_cast<sockaddr_in&>(address).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        else
            address.sin6_addr = in6addr_loopback;
        // A fuzzer makes more connections than there are ports; those of closed ones come back after a
        // minute.
        constexpr int kAttempts = 300;
        for (int attempt = 0; !make(family, address, size); ++attempt) {
            if (attempt == kAttempts)
                abort();
            close_all();
            usleep(300'000);
        }
    }
    ~TcpPair() { close_all(); }
    TcpPair(const TcpPair&) = delete;
    TcpPair& operator=(const TcpPair&) = delete;

    int listener = -1;
    int connector = -1;
    int acceptor = -1;

private:
    bool make(int family, const sockaddr_in6& address, socklen_t size) {
        listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        connector = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in6 bound = address;
        auto* const name = reinterpret_cast<sockaddr*>(&bound);
        if (bind(listener, name, size) != 0 || listen(listener, 8) != 0 ||
            getsockname(listener, name, &size) != 0 || connect(connector, name, size) != 0)
            return false;
        acceptor = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        return acceptor >= 0;
    }
    void close_all() {
        for (int* const fd : {&listener, &connector, &acceptor}) {
            if (*fd >= 0)
                close(*fd);
            *fd = -1;
        }
    }
};

}  // namespace loopfast
