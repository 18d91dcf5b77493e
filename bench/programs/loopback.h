// loopback.h: a listener on 127.0.0.1, in words that both worlds have: socket.cpp includes this after libc's
// headers, winsock.cpp after Winsock's, whose types and functions of these names cannot meet in one file.
#pragma once

#include <cstdint>
#include <cstdio>

namespace bench {

inline sockaddr_in loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

/// Binds to a free port and listens; prints "listening PORT" for whoever starts the client. `Size` is the
/// type of an address's size. Where a step fails, `die` says which.
template <typename Size, typename Socket> void listen_and_say_where(Socket s, void (*die)(const char* what)) {
    sockaddr_in address = loopback(0);
    Size size = sizeof address;
    if (bind(s, reinterpret_cast<sockaddr*>(&address), size) != 0)
        die("bind");
    if (listen(s, 1024) != 0)
        die("listen");
    if (getsockname(s, reinterpret_cast<sockaddr*>(&address), &size) != 0)
        die("getsockname");
    std::printf("listening %u\n", ntohs(address.sin_port));
    std::fflush(stdout);
}

}  // namespace bench
