// Two threads on one ring, every byte checked, and a third one that scribbles over the control words: the
// ends may then see rubbish or a broken ring, and never touch memory outside it or stop returning.
#include <pthread.h>

#include <atomic>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "ring_memory.h"

namespace loopfast {
namespace {

#ifdef LOOPFAST_SANITIZED
constexpr uint64_t kBytes = 24 << 20;
constexpr int64_t kScribbling = 500'000'000;
#else
constexpr uint64_t kBytes = 256 << 20;
constexpr int64_t kScribbling = 1'000'000'000;
#endif

struct Sizes {
    const char* name;
    size_t write;
    size_t read;
    uint64_t limit;
};

void PrintTo(const Sizes& sizes, std::ostream* out) { *out << sizes.name; }

class RingThreads : public ::testing::TestWithParam<Sizes> {};

TEST_P(RingThreads, EveryByteArrivesOnceInOrder) {
    const Sizes sizes = GetParam();
    RingMemory ring(kDefaultCapacity);
    const uint64_t total = sizes.write < 1000 ? kBytes / 32 : kBytes;
    const int64_t end = now_ns() + 60'000'000'000;
    std::thread producer([&] {
        std::mt19937_64 random(1);
        std::vector<unsigned char> bytes(sizes.write);
        for (uint64_t position = 0; position < total && now_ns() < end;) {
            const size_t size = std::min<uint64_t>(1 + random() % sizes.write, total - position);
            for (size_t i = 0; i < size; ++i)
                bytes[i] = byte_at(position + i);
            size_t done = 0;
            while (done < size && now_ns() < end) {
                const RingResult result = ring.write(bytes.data() + done, size - done, sizes.limit);
                ASSERT_EQ(result.status, RingResult::kDone);
                done += result.size;
                if (result.size == 0)
                    std::this_thread::yield();
            }
            position += size;
            if (random() % 64 == 0)
                ring.writer().give_back();
        }
    });
    std::mt19937_64 random(2);
    std::vector<unsigned char> bytes(sizes.read);
    uint64_t position = 0;
    while (position < total && now_ns() < end) {
        const size_t size = 1 + random() % sizes.read;
        if (random() % 16 == 0) {
            const RingResult seen = ring.read(bytes.data(), size, RingReader::kPeek);
            ASSERT_EQ(seen.status, RingResult::kDone);
            ASSERT_EQ(first_wrong(bytes.data(), position, seen.size), seen.size);
        }
        const RingResult result = ring.read(bytes.data(), size);
        ASSERT_EQ(result.status, RingResult::kDone);
        ASSERT_EQ(first_wrong(bytes.data(), position, result.size), result.size) << "from " << position;
        position += result.size;
        if (result.size == 0)
            std::this_thread::yield();
    }
    producer.join();
    EXPECT_EQ(position, total);
    EXPECT_EQ(ring.reader().available(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Sizes, RingThreads,
                         ::testing::Values(Sizes{"tiny", 8, 8, kDefaultCapacity},
                                           Sizes{"messages", 200, 4096, kDefaultCapacity},
                                           Sizes{"pages", 8192, 8192, 65536},
                                           Sizes{"narrow", 60'000, 5000, 4096},
                                           Sizes{"backlog", 3 << 20, 1 << 20, kDefaultCapacity},
                                           Sizes{"slow_reader", 1 << 20, 3000, kDefaultCapacity}),
                         [](const auto& test) { return std::string(test.param.name); });

/// Values at which arithmetic turns: ends of ranges, neighbours, sign bits.
uint64_t interesting(std::mt19937_64& random, const RingMemory& ring) {
    const uint64_t near = random() % 2 == 0 ? ring.head() : ring.tail();
    const uint64_t values[] = {0,
                               1,
                               near,
                               near + 1,
                               near - 1,
                               near + ring.capacity(),
                               near - ring.capacity(),
                               near + ring.capacity() + 1,
                               near + kSmallWindow,
                               near << 3 | (random() & 7),
                               (near + 1) << 3 | (random() & 7),
                               ~uint64_t{0},
                               uint64_t{1} << 63,
                               random()};
    return values[random() % std::size(values)];
}

TEST(RingUnderScribbling, ReturnsAndStaysInside) {
    RingMemory ring(kDefaultCapacity);
    std::atomic<bool> done{false};
    std::thread scribbler([&] {
        std::mt19937_64 random(3);
        while (!done.load(std::memory_order_relaxed)) {
            Untrusted<uint64_t>* const words[] = {
                &ring.direction.producer.head, &ring.direction.producer.jump[0],
                &ring.direction.producer.jump[1], &ring.direction.consumer.tail,
                &ring.direction.consumer.drained};
            words[random() % std::size(words)]->store(interesting(random, ring), std::memory_order_relaxed);
            for (int pause = static_cast<int>(random() % 200); pause > 0; --pause)
                pause_cpu();
        }
    });
    std::atomic<uint64_t> writes{0};
    std::thread producer([&] {
        std::mt19937_64 random(4);
        const std::vector<unsigned char> bytes(1 << 20);
        while (!done.load(std::memory_order_relaxed)) {
            const size_t size = random() % 2 == 0 ? random() % 300 : random() % bytes.size();
            const RingResult result = ring.write(bytes.data(), size, 1 + random() % kDefaultCapacity);
            ASSERT_LE(result.size, size);
            ring.writer().give_back();
            writes.fetch_add(1, std::memory_order_relaxed);
        }
    });
    std::mt19937_64 random(5);
    // The buffer's ends are watched: what a read says it took is all it may have written.
    std::vector<unsigned char> bytes((1 << 20) + 64, 0xee);
    uint64_t reads = 0;
    for (const int64_t end = now_ns() + kScribbling; now_ns() < end; ++reads) {
        const size_t size = random() % 2 == 0 ? random() % 300 : random() % (1 << 20);
        const RingResult result =
            ring.read(bytes.data() + 32, size, random() % 4 == 0 ? RingReader::kPeek : RingReader::kConsume);
        ASSERT_LE(result.size, size);
        ASSERT_LE(ring.reader().available(), ring.capacity() + 1);
    }
    done = true;
    producer.join();
    scribbler.join();
    EXPECT_GT(reads, 100U);
    EXPECT_GT(writes.load(), 100U);
    for (size_t i = 0; i < 32; ++i) {
        ASSERT_EQ(bytes[i], 0xee);
        ASSERT_EQ(bytes[bytes.size() - 1 - i], 0xee);
    }
}

/// Every word set to every interesting value, quietly: the next operation says so or goes on, and none of
/// them is without an answer for ever. "Without an answer" is a ring that shows bytes and gives none, or that
/// shows room and takes nothing: a caller that waits would spin.
TEST(RingUnderScribbling, NoDeadEnd) {
    std::mt19937_64 random(6);
    for (int round = 0; round < 3000; ++round) {
        SCOPED_TRACE(round);
        RingMemory ring(kDefaultCapacity);
        unsigned char bytes[1024] = {};
        for (uint64_t i = random() % 20; i > 0; --i) {
            ring.write(bytes, random() % sizeof bytes, kDefaultCapacity);
            if (random() % 2 == 0)
                ring.read(bytes, random() % sizeof bytes);
        }
        Untrusted<uint64_t>* const words[] = {&ring.direction.producer.head, &ring.direction.producer.jump[0],
                                              &ring.direction.producer.jump[1],
                                              &ring.direction.consumer.tail};
        for (uint64_t i = 1 + random() % 3; i > 0; --i)
            words[random() % std::size(words)]->store(interesting(random, ring), std::memory_order_relaxed);
        const uint64_t waiting = ring.reader().available();
        const RingResult read = ring.read(bytes, 100);
        ASSERT_TRUE(waiting == 0 || read.size > 0 || read.status == RingResult::kBroken)
            << waiting << " bytes are there and none comes";
        const uint64_t used = ring.writer().in_flight(true);
        const RingResult written = ring.write(bytes, sizeof bytes, kDefaultCapacity);
        ASSERT_TRUE(used > kDefaultCapacity * 2 / 3 || written.size > 0 ||
                    written.status == RingResult::kBroken)
            << used << " bytes are in flight and nothing is taken";
    }
}

}  // namespace
}  // namespace loopfast
