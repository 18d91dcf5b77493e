// epoll_server: the server that port_server is measured against: one thread, level-triggered epoll, each
// client's bytes go back to it. Not linked with loopfast; `load` is its client.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>

#include "arguments.h"
#include "load.h"
#include "socket.h"

namespace {

/// @return false when the client is gone.
bool answer(int fd, bench::Lane expected) {
    char bytes[bench::request_size];
    if (!bench::receive_all(fd, bytes, sizeof bytes))
        return false;
    if (bytes[0] == bench::check_lane)
        bench::require_lane(fd, expected);
    bench::send_all(fd, bytes, sizeof bytes);
    return true;
}

void add(int set, int fd) {
    epoll_event event{EPOLLIN, {}};
    event.data.fd = fd;
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0)
        bench::die("epoll_ctl");
}

}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    const int listener = bench::listen_and_announce();
    const int set = epoll_create1(EPOLL_CLOEXEC);
    add(set, listener);
    for (;;) {
        epoll_event events[64];
        const int count = epoll_wait(set, events, 64, -1);
        for (int i = 0; i < count; ++i) {
            const int fd = events[i].data.fd;
            if (fd == listener)
                add(set, bench::accept_one(listener));
            else if (!answer(fd, arguments.expected_lane()))
                close(fd);
        }
    }
}
