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
        listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        connector = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        auto* const name = reinterpret_cast<sockaddr*>(&address);
        if (bind(listener, name, size) != 0 || listen(listener, 8) != 0 ||
            getsockname(listener, name, &size) != 0 || connect(connector, name, size) != 0)
            abort();
        acceptor = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (acceptor < 0)
            abort();
    }
    ~TcpPair() {
        for (const int fd : {listener, connector, acceptor})
            if (fd >= 0)
                close(fd);
    }
    TcpPair(const TcpPair&) = delete;
    TcpPair& operator=(const TcpPair&) = delete;

    int listener = -1;
    int connector = -1;
    int acceptor = -1;
};

}  // namespace loopfast
