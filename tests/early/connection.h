// A connection within one process that is on the ring, for tests of what happens on top of its calls.
#pragma once

#include <arpa/inet.h>
#include <loopfast.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <initializer_list>

struct Connection {
    int ours = -1;
    int peer = -1;
};

[[noreturn]] inline void fail(const char* what) {
    std::perror(what);
    _exit(1);
}

/// `plain`: over the kernel, without opting in.
inline Connection connect_to_itself(bool plain = false) {
    Connection made;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    made.peer = socket(AF_INET, SOCK_STREAM, 0);
    if (!plain && (loopfast_enable(listener, 1) != 0 || loopfast_enable(made.peer, 1) != 0))
        fail("cannot opt in");
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
        connect(made.peer, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        (made.ours = accept(listener, nullptr, nullptr)) < 0)
        fail("no connection");
    close(listener);
    if (plain)
        return made;
    const auto on_the_ring = [&] {
        return loopfast_lane(made.ours) == LOOPFAST_LANE_RING &&
               loopfast_lane(made.peer) == LOOPFAST_LANE_RING;
    };
    char byte = 0;
    for (int round = 0; round < 1000 && !on_the_ring(); ++round)
        for (const int from : {made.peer, made.ours})
            if (send(from, &byte, 1, 0) != 1 ||
                recv(from == made.peer ? made.ours : made.peer, &byte, 1, 0) != 1)
                fail("no exchange");
    if (!on_the_ring())
        fail("not on the ring");
    return made;
}
