// pingpong: how long 64 bytes take there and back between two blocking sockets.
//
// The client sends 64 bytes and waits for 64 bytes; the server returns what it gets. One clock reading
// per round trip (its cost, some 25 ns, is part of the figure on both lanes). The first half second warms
// up: caches, the adaptive spin, and the connection's way to the ring. Both ends then check their lane,
// before the measurement and after it.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "arguments.h"
#include "socket.h"

namespace {

constexpr size_t message_size = 64;
constexpr uint64_t warm_up_ns = 500'000'000;
/// Beyond these the measurement ends early: 4 M samples of 4 bytes are enough for any percentile.
constexpr size_t most_samples = 4'000'000;
/// First byte of a message that asks the server to check its own lane.
constexpr char check_lane = 'L';

void serve(bench::Lane expected) {
    int listener = bench::listen_and_announce();
    for (;;) {
        int fd = bench::accept_one(listener);
        char message[message_size];
        while (bench::receive_all(fd, message, sizeof message)) {
            if (message[0] == check_lane)
                bench::require_lane(fd, expected);
            bench::send_all(fd, message, sizeof message);
        }
        close(fd);
    }
}

void round_trip(int fd, char kind) {
    char message[message_size] = {kind};
    bench::send_all(fd, message, sizeof message);
    if (!bench::receive_all(fd, message, sizeof message))
        bench::die("the server closed");
}

void check_both_ends(int fd, bench::Lane expected) {
    round_trip(fd, check_lane);
    bench::require_lane(fd, expected);
}

void measure(const bench::Arguments& arguments) {
    int fd = bench::connect_to(arguments.port());
    uint64_t begin = bench::now_ns();
    while (bench::now_ns() - begin < warm_up_ns)
        round_trip(fd, 'w');
    check_both_ends(fd, arguments.expected_lane());

    std::vector<uint32_t> samples(most_samples);
    const auto duration = static_cast<uint64_t>(arguments.seconds() * 1e9);
    size_t count = 0;
    begin = bench::now_ns();
    uint64_t before = begin;
    while (count < most_samples && before - begin < duration) {
        round_trip(fd, 'm');
        uint64_t after = bench::now_ns();
        samples[count++] = static_cast<uint32_t>(std::min<uint64_t>(after - before, UINT32_MAX));
        before = after;
    }
    check_both_ends(fd, arguments.expected_lane());

    samples.resize(count);
    std::sort(samples.begin(), samples.end());
    auto percentile = [&](double p) {
        return samples[static_cast<size_t>(p * static_cast<double>(count - 1))];
    };
    std::printf("{\"p50_ns\": %u, \"p90_ns\": %u, \"p99_ns\": %u, \"max_ns\": %u, \"mean_ns\": %.1f, "
                "\"round_trips\": %zu, \"lane\": \"%s\"}\n",
                percentile(0.5), percentile(0.9), percentile(0.99), samples.back(),
                static_cast<double>(before - begin) / static_cast<double>(count), count,
                bench::lane_name(bench::lane_of(fd)));
    close(fd);
}

}  // namespace

int main(int argc, char** argv) {
    bench::Arguments arguments(argc, argv);
    if (arguments.is_server())
        serve(arguments.expected_lane());
    else
        measure(arguments);
}
