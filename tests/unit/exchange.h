// Traffic over streams with every byte checked: what is sent follows from its position, whatever the pieces.
#pragma once

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "ring_memory.h"
#include "stream_pair.h"

namespace loopfast {

/// Sends `total` bytes in random pieces; blocking, or not with polling.
inline void send_all(int fd, uint64_t base, uint64_t total, uint64_t seed, size_t largest) {
    std::mt19937_64 random(seed);
    for (uint64_t sent = 0; sent < total;) {
        const size_t size = std::min<uint64_t>(1 + random() % largest, total - sent);
        const auto bytes = bytes_at(base + sent, size);
        const long result = door_send(fd, bytes.data(), size);
        ASSERT_EQ(result, static_cast<long>(size));
        sent += size;
    }
}

inline void receive_all(int fd, uint64_t base, uint64_t total, uint64_t seed, size_t largest) {
    std::mt19937_64 random(seed);
    std::vector<unsigned char> bytes(largest);
    for (uint64_t got = 0; got < total;) {
        const size_t size = std::min<uint64_t>(1 + random() % largest, total - got);
        const long result = door_receive(fd, bytes.data(), size);
        ASSERT_GT(result, 0) << "after " << got;
        const auto count = static_cast<size_t>(result);
        ASSERT_EQ(first_wrong(bytes.data(), base + got, count), count) << "after " << got;
        got += count;
    }
}

constexpr uint64_t kOtherWay = uint64_t{1} << 40;
#ifdef LOOPFAST_SANITIZED
constexpr uint64_t kMuch = 1 << 20;
constexpr int kRounds = 5;
#else
constexpr uint64_t kMuch = 8 << 20;
constexpr int kRounds = 15;
#endif

/// Both directions at once, each end with a thread that sends and one that receives.
inline void exchange(int fd, uint64_t out, uint64_t in, uint64_t total, uint64_t seed, size_t largest) {
    std::thread sender([=] { send_all(fd, out, total, seed, largest); });
    receive_all(fd, in, total, seed + 1, largest);
    sender.join();
}

}  // namespace loopfast
