// stream: how many bytes per second one connection carries in one direction.
//
// The client writes 64 KiB at a time for the given seconds, says it is done (half close) and waits for
// the server's count, so bytes still under way are not counted as delivered. The server reads into a
// buffer of the same size and touches nothing: what is measured is the transport. Traffic flows one way
// only, from the first byte on, because real transfers do; half a second of it is the warm-up.
#include <cinttypes>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <vector>

#include "arguments.h"
#include "socket.h"

namespace {

constexpr size_t default_write_size = size_t{64} * 1024;
constexpr uint64_t warm_up_ns = 500'000'000;

void serve(const bench::Arguments& arguments) {
    std::vector<char> buffer(static_cast<size_t>(arguments.number("size", default_write_size)));
    int listener = bench::listen_and_announce();
    for (;;) {
        int fd = bench::accept_one(listener);
        uint64_t received = 0;
        ssize_t n;
        while ((n = recv(fd, buffer.data(), buffer.size(), 0)) > 0)
            received += static_cast<uint64_t>(n);
        if (n < 0)
            bench::die("recv");
        bench::send_all(fd, &received, sizeof received);
        close(fd);
    }
}

void measure(const bench::Arguments& arguments) {
    std::vector<char> buffer(static_cast<size_t>(arguments.number("size", default_write_size)), 's');
    int fd = bench::connect_to(arguments.port());
    uint64_t sent_before = 0;
    uint64_t begin = bench::now_ns();
    while (bench::now_ns() - begin < warm_up_ns) {
        bench::send_all(fd, buffer.data(), buffer.size());
        sent_before += buffer.size();
    }
    bench::require_lane(fd, arguments.expected_lane());

    const auto duration = static_cast<uint64_t>(arguments.seconds() * 1e9);
    uint64_t sent = 0;
    begin = bench::now_ns();
    while (bench::now_ns() - begin < duration) {
        bench::send_all(fd, buffer.data(), buffer.size());
        sent += buffer.size();
    }
    bench::require_lane(fd, arguments.expected_lane());
    const bench::Lane lane = bench::lane_of(fd);

    if (shutdown(fd, SHUT_WR) != 0)
        bench::die("shutdown");
    uint64_t received = 0;
    if (!bench::receive_all(fd, &received, sizeof received))
        bench::die("the server closed");
    uint64_t elapsed = bench::now_ns() - begin;
    if (received != sent + sent_before) {
        std::fprintf(stderr, "sent %" PRIu64 " bytes, the server counted %" PRIu64 "\n",
                     uint64_t{sent} + sent_before, received);
        std::exit(4);
    }
    std::printf("{\"bytes_per_second\": %.0f, \"bytes\": %llu, \"write_size\": %zu, \"lane\": \"%s\"}\n",
                static_cast<double>(sent) * 1e9 / static_cast<double>(elapsed),
                static_cast<unsigned long long>(sent), buffer.size(), bench::lane_name(lane));
    close(fd);
}

}  // namespace

int main(int argc, char** argv) {
    bench::Arguments arguments(argc, argv);
    if (arguments.is_server())
        serve(arguments);
    else
        measure(arguments);
}
