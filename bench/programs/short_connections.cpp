// short_connections: connect, 64 bytes each way, close; how many per second, one after the other.
//
// This is where a fast path costs and cannot pay: nothing of it may be felt. The client closes first, as
// most do, and so the TIME_WAIT sockets are its own; a count bounds the run because the kernel has some
// 28000 ports to give to one destination.
#include <unistd.h>

#include <cstdio>

#include "arguments.h"
#include "socket.h"

namespace {

constexpr size_t message_size = 64;
constexpr double most_connections = 20'000;

void serve(bench::Lane expected) {
    int listener = bench::listen_and_announce();
    for (;;) {
        int fd = bench::accept_one(listener);
        char message[message_size];
        while (bench::receive_all(fd, message, sizeof message)) {
            bench::require_lane(fd, expected);
            bench::send_all(fd, message, sizeof message);
        }
        close(fd);
    }
}

void one_connection(uint16_t port, bench::Lane expected) {
    char message[message_size] = {'s'};
    int fd = bench::connect_to(port);
    bench::send_all(fd, message, sizeof message);
    if (!bench::receive_all(fd, message, sizeof message))
        bench::die("the server closed");
    bench::require_lane(fd, expected);
    close(fd);
}

void measure(const bench::Arguments& arguments) {
    for (int i = 0; i < 500; ++i)
        one_connection(arguments.port(), arguments.expected_lane());
    const auto duration = static_cast<uint64_t>(arguments.seconds() * 1e9);
    uint64_t count = 0;
    uint64_t begin = bench::now_ns();
    uint64_t now = begin;
    while (now - begin < duration && static_cast<double>(count) < most_connections) {
        one_connection(arguments.port(), arguments.expected_lane());
        ++count;
        now = bench::now_ns();
    }
    std::printf("{\"connections_per_second\": %.1f, \"connections\": %llu}\n",
                static_cast<double>(count) * 1e9 / static_cast<double>(now - begin),
                static_cast<unsigned long long>(count));
}

}  // namespace

int main(int argc, char** argv) {
    bench::Arguments arguments(argc, argv);
    if (arguments.is_server())
        serve(arguments.expected_lane());
    else
        measure(arguments);
}
