// idle: connections that talked a little and then fell silent, for somebody else to look at.
//
// The client opens --connections connections and makes some round trips of 64 bytes on each, in turn;
// both ends check the lane of every one. Then it prints {"ready": ...} and both processes sleep in
// epoll_wait without a timeout, as idle programs do, until they are killed. What they cost meanwhile,
// processor time and memory, is read from /proc by the runner: a program that measures itself is not idle.
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "arguments.h"
#include "socket.h"

namespace {

constexpr size_t message_size = 64;
/// Round trips per connection: some 19 KiB each way, well past any threshold for fusing.
constexpr double default_round_trips = 300;
constexpr char check_lane = 'L';

void watch(int epoll, int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        bench::die("epoll_ctl");
}

int wait_for_one(int epoll) {
    epoll_event event{};
    for (;;) {
        int n = epoll_wait(epoll, &event, 1, -1);
        if (n == 1)
            return event.data.fd;
        if (n < 0 && errno != EINTR)
            bench::die("epoll_wait");
    }
}

void serve(bench::Lane expected) {
    int listener = bench::listen_and_announce();
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll, listener);
    for (;;) {
        int fd = wait_for_one(epoll);
        if (fd == listener) {
            watch(epoll, bench::accept_one(listener));
            continue;
        }
        char message[message_size];
        if (!bench::receive_all(fd, message, sizeof message)) {
            close(fd);
            continue;
        }
        if (message[0] == check_lane)
            bench::require_lane(fd, expected);
        bench::send_all(fd, message, sizeof message);
    }
}

void round_trip(int fd, char kind) {
    char message[message_size] = {kind};
    bench::send_all(fd, message, sizeof message);
    if (!bench::receive_all(fd, message, sizeof message))
        bench::die("the server closed");
}

void hold(const bench::Arguments& arguments) {
    const auto connections = static_cast<int>(arguments.number("connections", 100));
    const auto round_trips = static_cast<int>(arguments.number("round-trips", default_round_trips));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    std::vector<int> fds;
    fds.reserve(static_cast<size_t>(connections));
    for (int i = 0; i < connections; ++i)
        fds.push_back(bench::connect_to(arguments.port()));
    for (int fd : fds) {
        for (int i = 0; i < round_trips; ++i)
            round_trip(fd, 'w');
        round_trip(fd, check_lane);
        bench::require_lane(fd, arguments.expected_lane());
        watch(epoll, fd);
    }
    std::printf("{\"ready\": true, \"connections\": %d}\n", connections);
    std::fflush(stdout);
    wait_for_one(epoll);
    std::fprintf(stderr, "an idle connection became readable\n");
    std::exit(4);
}

}  // namespace

int main(int argc, char** argv) {
    bench::Arguments arguments(argc, argv);
    if (arguments.is_server())
        serve(arguments.expected_lane());
    else
        hold(arguments);
}
