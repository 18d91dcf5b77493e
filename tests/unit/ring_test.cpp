// The elastic ring against a model: a stream whose byte at each position is known, and two counters.
// Operations are drawn at random; a run is named by its seed, which a failure prints.
//
// A relative that is killed in the middle of an operation is played by taking stores back: those that come
// last in the operation are undone, one by one, as if it had never got to them.
#include "segment/ring.h"

#include <random>

#include <gtest/gtest.h>

#include "ring_memory.h"

namespace loopfast {
namespace {

using Random = std::mt19937_64;

constexpr auto kRelaxed = std::memory_order_relaxed;

/// Sizes as programs have them: mostly small, some around a page and the window, a few huge.
size_t draw_size(Random& random, uint64_t capacity) {
    switch (random() % 8) {
    case 0:
        return random() % 4;
    case 1:
    case 2:
    case 3:
        return random() % 300;
    case 4:
        return 4096 - 8 + random() % 16;
    case 5:
        return random() % 40'000;
    case 6:
        return random() % (2 * Jump::small(capacity));
    default:
        return random() % (capacity + capacity / 4);
    }
}

/// A vector of parts, some of them empty, that covers `size` bytes of `bytes`.
std::vector<iovec> draw_parts(Random& random, unsigned char* bytes, size_t size) {
    std::vector<iovec> parts;
    size_t done = 0;
    while (done < size && parts.size() < 7) {
        if (random() % 4 == 0)
            parts.push_back({nullptr, 0});
        const size_t part = 1 + random() % (size - done);
        parts.push_back({bytes + done, part});
        done += part;
    }
    if (done < size)
        parts.push_back({bytes + done, size - done});
    return parts;
}

class Model {
public:
    Model(uint64_t seed, uint64_t capacity)
        : random_(seed), ring_(capacity), buffer_(2 * capacity + 40'000), limit_(capacity) {}

    void step() {
        switch (random_() % 16) {
        case 0:
            limit_ = draw_limit();
            break;
        case 1:
            ring_.writer().give_back();
            break;
        case 2:
            killed_write();
            break;
        case 3:
            killed_read();
            break;
        case 4:
            peek();
            break;
        case 5:
            drop();
            break;
        case 6:
            fill_from_empty();
            break;
        case 7:
        case 8:
        case 9:
        case 10:
            read(draw_size(random_, ring_.capacity()));
            break;
        default:
            write(draw_size(random_, ring_.capacity()));
        }
        if (::testing::Test::HasFatalFailure())
            return;
        ASSERT_EQ(ring_.head(), head_);
        ASSERT_EQ(ring_.tail(), tail_);
        ASSERT_EQ(ring_.reader().available(), head_ - tail_);
        ASSERT_EQ(ring_.writer().in_flight(true), head_ - tail_);
        ASSERT_LE(head_ - tail_, ring_.capacity());
    }

private:
    uint64_t draw_limit() {
        const uint64_t some[] = {1, 4096, 65536, ring_.capacity() / 2, ring_.capacity(), ring_.capacity()};
        return random_() % 4 == 0 ? 1 + random_() % ring_.capacity() : some[random_() % 6];
    }

    void write(size_t size) {
        for (size_t i = 0; i < size; ++i)
            buffer_[i] = byte_at(head_ + i);
        const auto parts = draw_parts(random_, buffer_.data(), size);
        const bool may_grow = random_() % 8 != 0;
        const RingResult result =
            ring_.writer().write(Buffers(parts.data(), parts.size()), size, limit_, may_grow);
        ASSERT_EQ(result.status, RingResult::kDone);
        ASSERT_LE(result.size, size);
        const uint64_t before = head_ - tail_;
        head_ += result.size;
        ASSERT_TRUE(result.size == 0 || head_ - tail_ <= limit_);
        ASSERT_TRUE(before != 0 || size == 0 || result.size > 0) << "an empty ring takes something";
    }

    void read(size_t size) {
        const auto parts = draw_parts(random_, buffer_.data(), size);
        Buffers to(parts.data(), parts.size());
        const RingResult result = ring_.reader().read(&to, size, RingReader::kConsume);
        ASSERT_EQ(result.status, RingResult::kDone);
        ASSERT_LE(result.size, size);
        ASSERT_LE(result.size, head_ - tail_);
        ASSERT_TRUE(size == 0 || head_ == tail_ || result.size > 0) << "what is there is read";
        ASSERT_EQ(first_wrong(buffer_.data(), tail_, result.size), result.size);
        tail_ += result.size;
    }

    void peek() {
        const size_t size = draw_size(random_, ring_.capacity());
        const RingResult result = ring_.read(buffer_.data(), size, RingReader::kPeek);
        ASSERT_EQ(result.status, RingResult::kDone);
        // A look sees across any number of changes of window.
        ASSERT_EQ(result.size, std::min<uint64_t>(size, head_ - tail_));
        ASSERT_EQ(first_wrong(buffer_.data(), tail_, result.size), result.size);
    }

    void drop() {
        const RingResult result =
            ring_.reader().read(nullptr, draw_size(random_, ring_.capacity()), RingReader::kConsume);
        ASSERT_EQ(result.status, RingResult::kDone);
        tail_ += result.size;
    }

    void fill_from_empty() {
        while (tail_ != head_) {
            read(buffer_.size());
            if (::testing::Test::HasFatalFailure())
                return;
        }
        const size_t taken = ring_.fill(buffer_.size(), limit_);
        ASSERT_EQ(taken, std::min(limit_, ring_.capacity())) << "capacity from empty is all of it";
        head_ += taken;
    }

    void killed_write() {
        // Rubbish, so that bytes of a write that never happened would be recognised.
        const size_t size = draw_size(random_, ring_.capacity());
        for (size_t i = 0; i < size; ++i)
            buffer_[i] = static_cast<unsigned char>(~byte_at(head_ + i));
        const uint64_t jump = ring_.producer.jump.load(kRelaxed);
        const uint64_t previous = ring_.producer.previous_jump.load(kRelaxed);
        const uint64_t slots[2] = {ring_.direction.producer.jump[0].load(kRelaxed).harmless(),
                                   ring_.direction.producer.jump[1].load(kRelaxed).harmless()};
        ring_.write(buffer_.data(), size, limit_);
        const uint64_t progress = random_() % 4;
        ring_.direction.producer.head.store(head_, kRelaxed);  // killed before the swap
        if (progress < 3)                                      // ... before the record was published
            for (int i = 0; i < 2; ++i)
                ring_.direction.producer.jump[i].store(slots[i], kRelaxed);
        // One write changes at most two records, and only after the first one's store is the second made.
        const bool one = ((Jump(ring_.producer.jump.load(kRelaxed)).number() - Jump(jump).number()) & 3) == 1;
        if (progress < 2 && one)  // ... between the two stores of the change
            ring_.producer.jump.store(jump, kRelaxed);
        if (progress < 1 && one)
            ring_.producer.previous_jump.store(previous, kRelaxed);
    }

    void killed_read() {
        const uint64_t jump = ring_.consumer.jump.load(kRelaxed);
        const uint64_t previous = ring_.consumer.previous_jump.load(kRelaxed);
        const size_t size = draw_size(random_, ring_.capacity());
        ring_.read(buffer_.data(), size);
        const uint64_t progress = random_() % 3;
        ring_.direction.consumer.tail.store(tail_, kRelaxed);
        if (progress < 2)
            ring_.consumer.jump.store(jump, kRelaxed);
        if (progress < 1)
            ring_.consumer.previous_jump.store(previous, kRelaxed);
    }

    Random random_;
    RingMemory ring_;
    std::vector<unsigned char> buffer_;
    uint64_t limit_;
    uint64_t head_ = 0;
    uint64_t tail_ = 0;
};

class RingModel : public ::testing::TestWithParam<uint64_t> {};

TEST_P(RingModel, RandomOperations) {
    const uint64_t capacity = GetParam();
#ifdef LOOPFAST_SANITIZED
    const uint64_t runs = capacity <= 65536 ? 10 : 2;
#else
    const uint64_t runs = capacity <= 65536 ? 60 : 4;
#endif
    for (uint64_t seed = 1; seed <= runs; ++seed) {
        SCOPED_TRACE(testing::Message() << "capacity " << capacity << ", seed " << seed);
        Model model(seed, capacity);
        for (int i = 0; i < 400; ++i) {
            SCOPED_TRACE(testing::Message() << "step " << i);
            model.step();
            if (HasFatalFailure())
                return;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Capacities, RingModel,
                         ::testing::Values(uint64_t{4096}, uint64_t{65536}, kSmallWindow, 2 * kSmallWindow,
                                           kDefaultCapacity));

TEST(Ring, SmallMessagesStayInOnePage) {
    RingMemory ring(kDefaultCapacity);
    unsigned char buffer[64];
    for (int i = 0; i < 20'000; ++i) {
        const uint64_t position = ring.head();
        const auto bytes = bytes_at(position, sizeof buffer);
        ASSERT_EQ(ring.write(bytes.data(), bytes.size(), kDefaultCapacity).size, bytes.size());
        ASSERT_EQ(ring.read(buffer, sizeof buffer).size, sizeof buffer);
        ASSERT_EQ(first_wrong(buffer, position, sizeof buffer), sizeof buffer);
    }
    EXPECT_EQ(ring.pages_used(), 1U);
}

TEST(Ring, RestartsOnAnEmptyRingOnly) {
    RingMemory ring(kDefaultCapacity);
    ASSERT_EQ(ring.fill(4000, kDefaultCapacity), 4000U);
    // Not empty: the page runs out, and the bytes go on behind it.
    ASSERT_EQ(ring.fill(200, kDefaultCapacity), 200U);
    EXPECT_EQ(ring.producer.jump.load(kRelaxed), 0U);
    ASSERT_TRUE(ring.drain());
    ASSERT_EQ(ring.fill(200, kDefaultCapacity), 200U);
    const Jump jump(ring.producer.jump.load(kRelaxed));
    EXPECT_EQ(jump.kind(), Jump::kRestart);
    EXPECT_EQ(jump.at(), 4200U);
    EXPECT_EQ(jump.number(), 1U);
    EXPECT_TRUE(ring.drain());
}

TEST(Ring, GrowsWhenTheWindowIsFullUnlessForbidden) {
    RingMemory ring(kDefaultCapacity);
    EXPECT_EQ(ring.fill(kDefaultCapacity, kDefaultCapacity, false), kSmallWindow);
    EXPECT_EQ(ring.fill(100, kDefaultCapacity, false), 0U);
    EXPECT_EQ(ring.fill(100, kDefaultCapacity, true), 100U);
    EXPECT_EQ(Jump(ring.producer.jump.load(kRelaxed)).kind(), Jump::kGrow);
    EXPECT_TRUE(ring.drain());
}

TEST(Ring, ChangedLimitCountsWhatIsThere) {
    RingMemory ring(kDefaultCapacity);
    ASSERT_EQ(ring.fill(100'000, kDefaultCapacity), 100'000U);
    EXPECT_EQ(ring.fill(1, 65536), 0U) << "a smaller limit: more is in flight than it allows";
    EXPECT_EQ(ring.fill(200'000, 150'000), 50'000U);
    EXPECT_TRUE(ring.drain());
}

TEST(Ring, GivesThePagesOfABacklogBack) {
    RingMemory ring(kDefaultCapacity);
    ASSERT_EQ(ring.fill(kDefaultCapacity, kDefaultCapacity), kDefaultCapacity);
    EXPECT_EQ(ring.pages_used(), kDefaultCapacity / 4096);
    EXPECT_FALSE(ring.writer().give_back()) << "bytes are still in flight";
    ASSERT_TRUE(ring.drain());
    EXPECT_TRUE(ring.writer().give_back());
    EXPECT_LE(ring.pages_used(), 1U);
    EXPECT_FALSE(ring.writer().give_back()) << "there is nothing more to give";
    EXPECT_EQ(ring.fill(300'000, kDefaultCapacity), 300'000U);
    EXPECT_TRUE(ring.drain());
}

TEST(Ring, ABadRecordIsNeverWaitedFor) {
    // Two records for the same position: no producer writes these, since each record covers a byte. A reader
    // that took neither bytes nor offence would be asked again for ever.
    RingMemory ring(kDefaultCapacity);
    ring.direction.producer.jump[1].store(Jump(0, Jump::kRestart, 1).packed(), kRelaxed);
    ring.direction.producer.jump[0].store(Jump(0, Jump::kGrow, 2).packed(), kRelaxed);
    ring.direction.producer.head.store(10, kRelaxed);
    unsigned char buffer[16];
    const RingResult result = ring.read(buffer, sizeof buffer);
    EXPECT_TRUE(result.status == RingResult::kBroken || result.size > 0);
}

TEST(Ring, ADeadEndIsReportedAsBroken) {
    // A head before the record that it must be beyond, and more in flight than the window holds: the ring
    // says neither that there is room (there is none) nor that there is none (a poll would say there is).
    RingMemory ring(kDefaultCapacity);
    ring.direction.consumer.tail.store(uint64_t{0} - 300'000, kRelaxed);
    const std::vector<unsigned char> bytes(5000);  // more than the page, so that the tail is looked at
    EXPECT_EQ(ring.write(bytes.data(), bytes.size(), kDefaultCapacity).status, RingResult::kBroken);
}

TEST(Jump, PacksAndUnpacks) {
    const Jump jump(12345, Jump::kGrow, 6);
    EXPECT_EQ(jump.at(), 12345U);
    EXPECT_EQ(jump.kind(), Jump::kGrow);
    EXPECT_EQ(jump.number(), 2U);
    EXPECT_TRUE(Jump(0, Jump::kRestart, 7).follows(jump));
    EXPECT_FALSE(Jump(0, Jump::kRestart, 5).follows(jump));
    EXPECT_EQ(Jump().packed(), 0U);
    // Every record and position give a place inside.
    for (const uint64_t packed : {uint64_t{0}, ~uint64_t{0}, uint64_t{4}, uint64_t{1} << 63})
        for (const uint64_t p : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, uint64_t{1} << 62})
            EXPECT_LT(Jump(packed).place(p, kDefaultCapacity), kDefaultCapacity);
}

TEST(BuffersTest, SkipsAndSplitsAcrossEmptyParts) {
    char text[] = "abcdefgh";
    const iovec parts[] = {{nullptr, 0}, {text, 3}, {text + 3, 0}, {text + 3, 5}, {nullptr, 0}};
    Buffers from(parts, 5);
    char copy[8] = {};
    ASSERT_TRUE(from.copy_in(copy, 2));
    from.skip(2);
    iovec rest[4];
    ASSERT_EQ(from.parts(rest, 4, 3), 1);
    EXPECT_EQ(rest[0].iov_base, text + 4);
    EXPECT_EQ(rest[0].iov_len, 3U);
    ASSERT_TRUE(from.copy_in(copy + 2, 4));
    EXPECT_EQ(std::string(copy, 6), "abefgh");
    EXPECT_EQ(from.parts(rest, 4, 100), 0);
}

}  // namespace
}  // namespace loopfast
