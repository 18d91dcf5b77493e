// socket.cpp: see socket.h.
#include "socket.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "loopback.h"

namespace bench {

namespace {

void set_nodelay(int fd) {
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        die("TCP_NODELAY");
}

}  // namespace

void die(const char* what) {
    std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

int listen_and_announce() {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    listen_and_say_where<socklen_t>(fd, die);
    return fd;
}

int accept_one(int listener) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0)
        die("accept");
    set_nodelay(fd);
    return fd;
}

int connect_to(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    set_nodelay(fd);
    sockaddr_in address = loopback(port);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        die("connect");
    return fd;
}

void send_all(int fd, const void* data, size_t size) {
    const char* from = static_cast<const char*>(data);
    while (size > 0) {
        ssize_t n = send(fd, from, size, MSG_NOSIGNAL);
        if (n < 0)
            die("send");
        from += n;
        size -= static_cast<size_t>(n);
    }
}

bool receive_all(int fd, void* data, size_t size) {
    char* to = static_cast<char*>(data);
    size_t left = size;
    while (left > 0) {
        ssize_t n = recv(fd, to, left, 0);
        if (n < 0)
            die("recv");
        if (n == 0) {
            if (left == size)
                return false;
            errno = EPIPE;
            die("recv: the stream ended inside a message");
        }
        to += n;
        left -= static_cast<size_t>(n);
    }
    return true;
}

Lane lane_of(int fd) {
    using Query = int (*)(int);
    auto query = reinterpret_cast<Query>(dlsym(RTLD_DEFAULT, "loopfast_lane"));
    if (query == nullptr)
        return Lane::kernel;
    return query(fd) == 1 ? Lane::ring : Lane::kernel;
}

const char* lane_name(Lane lane) {
    switch (lane) {
    case Lane::kernel:
        return "kernel";
    case Lane::ring:
        return "ring";
    case Lane::any:
        break;
    }
    return "any";
}

void require_lane(int fd, Lane expected) {
    Lane lane = lane_of(fd);
    if (expected == Lane::any || lane == expected)
        return;
    using Reason = int (*)(int);
    auto reason = reinterpret_cast<Reason>(dlsym(RTLD_DEFAULT, "loopfast_reason"));
    std::fprintf(stderr, "the connection is on the %s lane, not on the %s lane (reason %d)\n",
                 lane_name(lane), lane_name(expected), reason == nullptr ? -1 : reason(fd));
    std::exit(3);
}

uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace bench
