// See demo_worker.h.
#include "cli/demo_worker.h"

#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/failure.h"
#include "cli/histogram.h"
#include "loopfast.h"
#include "policy/reason.h"

namespace loopfast::cli {

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMessage = 64;
constexpr size_t kBlock = 64 * 1024;
// A connection moves over after a few kilobytes; what has not happened after this does not happen.
constexpr auto kWarmUp = std::chrono::milliseconds(100);
constexpr auto kLongestWarmUp = std::chrono::seconds(2);

void check(bool good, const char* what) {
    if (!good)
        throw Failure(kFailed, fmt::format("{}: {}", what, strerror(errno)));
}

void run_on(int cpu) {
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

sockaddr_in loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
}

void no_delay(int socket) {
    const int on = 1;
    check(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
}

/// @return false at the end of the stream.
bool read_all(int socket, void* bytes, size_t size) {
    for (size_t done = 0; done < size;) {
        const ssize_t count = read(socket, static_cast<char*>(bytes) + done, size - done);
        if (count == 0)
            return false;
        check(count > 0, "read");
        done += static_cast<size_t>(count);
    }
    return true;
}

void write_all(int socket, const void* bytes, size_t size) {
    for (size_t done = 0; done < size;) {
        const ssize_t count = write(socket, static_cast<const char*>(bytes) + done, size - done);
        check(count > 0, "write");
        done += static_cast<size_t>(count);
    }
}

void serve_pingpong(int socket) {
    char message[kMessage];
    while (read_all(socket, message, sizeof message))
        write_all(socket, message, sizeof message);
}

/// Swallows everything, then says how much it was. The first block is answered at once, so that both
/// directions have carried something before the measurement.
void serve_stream(int socket) {
    std::vector<char> block(kBlock);
    uint64_t total = 0;
    if (read_all(socket, block.data(), block.size())) {
        total += block.size();
        write_all(socket, &total, sizeof total);
    }
    for (;;) {
        const ssize_t count = read(socket, block.data(), block.size());
        check(count >= 0, "read");
        if (count == 0)
            break;
        total += static_cast<uint64_t>(count);
    }
    write_all(socket, &total, sizeof total);
}

/// Which lane the connection is on. Without the library in the process it is the kernel's.
struct Lane {
    bool ring;
    std::string reason;
};

Lane lane_of(int socket) {
    using Query = int (*)(int);
    const auto lane = reinterpret_cast<Query>(dlsym(RTLD_DEFAULT, "loopfast_lane"));
    const auto reason = reinterpret_cast<Query>(dlsym(RTLD_DEFAULT, "loopfast_reason"));
    if (lane == nullptr || reason == nullptr)
        return {false, "the library is not loaded"};
    return {lane(socket) == LOOPFAST_LANE_RING, reason_name(reason(socket))};
}

/// Repeats `step` for the warm-up, and longer while the claimed lane is not there yet.
template <class Step> void warm_up(int socket, bool ring, const Step& step) {
    const auto begin = Clock::now();
    for (;;) {
        for (int i = 0; i < 16; ++i)
            step();
        const auto passed = Clock::now() - begin;
        if (passed > kWarmUp && (lane_of(socket).ring == ring || passed > kLongestWarmUp))
            return;
    }
}

nlohmann::json measure_pingpong(int socket, const WorkerOptions& options) {
    char message[kMessage] = "ping";
    const auto round_trip = [&] {
        write_all(socket, message, sizeof message);
        check(read_all(socket, message, sizeof message), "the server closed the connection; read");
    };
    warm_up(socket, options.ring, round_trip);
    Histogram histogram;
    const auto begin = Clock::now();
    const auto end = begin + std::chrono::duration<double>(options.seconds);
    for (auto before = begin; before < end;) {
        round_trip();
        const auto after = Clock::now();  // one reading for both: a clock costs as much as a short trip
        histogram.add(static_cast<uint64_t>((after - before).count()));
        before = after;
    }
    return {{"p50", histogram.percentile(0.50)},
            {"p99", histogram.percentile(0.99)},
            {"count", histogram.count()}};
}

nlohmann::json measure_stream(int socket, const WorkerOptions& options) {
    const std::vector<char> block(kBlock, 'x');
    uint64_t sent = 0;
    const auto send_block = [&] {
        write_all(socket, block.data(), block.size());
        sent += block.size();
    };
    uint64_t received = 0;
    send_block();
    check(read_all(socket, &received, sizeof received), "the server closed the connection; read");
    warm_up(socket, options.ring, send_block);
    const uint64_t before = sent;
    const auto begin = Clock::now();
    const auto end = begin + std::chrono::duration<double>(options.seconds);
    while (Clock::now() < end)
        send_block();
    check(shutdown(socket, SHUT_WR) == 0, "shutdown");
    check(read_all(socket, &received, sizeof received), "the server closed the connection; read");
    const std::chrono::duration<double> passed = Clock::now() - begin;
    if (received != sent)
        throw Failure(kFailed, fmt::format("{} bytes sent, {} received", sent, received));
    return {{"bytes_per_second", static_cast<double>(sent - before) / passed.count()}};
}

}  // namespace

int demo_server(const WorkerOptions& options) {
    run_on(options.cpu);
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(listener >= 0, "socket");
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    check(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0, "bind");
    check(listen(listener, 1) == 0, "listen");
    check(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0, "getsockname");
    fmt::print("{}\n", ntohs(address.sin_port));
    check(fflush(stdout) == 0, "stdout");
    const int connection = accept(listener, nullptr, nullptr);
    check(connection >= 0, "accept");
    no_delay(connection);
    if (options.work == "stream")
        serve_stream(connection);
    else
        serve_pingpong(connection);
    close(connection);
    close(listener);
    return 0;
}

int demo_client(const WorkerOptions& options) {
    run_on(options.cpu);
    const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(connection >= 0, "socket");
    const sockaddr_in address = loopback(options.port);
    check(connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
    no_delay(connection);
    nlohmann::json result = options.work == "stream" ? measure_stream(connection, options)
                                                     : measure_pingpong(connection, options);
    // Asked at the end of the measurement: a connection that fell back in the middle is found out too.
    const Lane lane = lane_of(connection);
    result["lane"] = lane.ring ? "ring" : "kernel";
    result["reason"] = lane.reason;
    fmt::print("{}\n", result.dump());
    close(connection);
    return 0;
}

}  // namespace loopfast::cli
