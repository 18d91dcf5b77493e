// A program whose clock stands still, as libfaketime's does for a moment that is named: what bounds a wait is
// the kernel's clock, on the ring as in the kernel. Its clock_gettime stands before that of the C library for
// all.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

#include "connection.h"
#include "require.h"

extern "C" int clock_gettime(clockid_t /*clock*/, timespec* time) noexcept {
    *time = {1'577'836'800, 0};
    return 0;
}

namespace {

constexpr timeval kBound{0, 50'000};

void waits_end(int fd) {
    pollfd one{fd, POLLIN, 0};
    REQUIRE(poll(&one, 1, 50) == 0);

    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    timeval bound = kBound;
    REQUIRE(select(fd + 1, &set, nullptr, nullptr, &bound) == 0);

    const int events = epoll_create1(0);
    epoll_event event{EPOLLIN, {}};
    REQUIRE(epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) == 0);
    REQUIRE(epoll_wait(events, &event, 1, 50) == 0);
    close(events);

    char byte = 0;
    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kBound, sizeof kBound) == 0);
    REQUIRE(recv(fd, &byte, 1, 0) == -1 && errno == EAGAIN);
}

}  // namespace

int main() {
    alarm(20);
    for (const bool plain : {true, false}) {
        const Connection made = connect_to_itself(plain);
        waits_end(made.ours);
        close(made.ours);
        close(made.peer);
    }
    return 0;
}
