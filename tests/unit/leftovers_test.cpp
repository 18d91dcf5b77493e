// Memory that has carried one connection's data never shows up in another: after a connection is closed,
// neither the next one's segment, nor the mapping that is kept, nor the arena holds a byte of it.
#include <sys/mman.h>

#include <cstring>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "segment/segment.h"
#include "stream_pair.h"
#include "table/arena.h"

namespace loopfast {
namespace {

constexpr unsigned char kMark = 0xa7;
constexpr std::string_view kMarks("\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7", 16);

bool holds_marks(const void* memory, size_t size) {
    return memmem(memory, size, kMarks.data(), kMarks.size()) != nullptr;
}

/// Fills both rings, reads a part of it, and closes. `unread`: some of it is never read.
void fill_and_close(bool unread) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    std::vector<unsigned char> bytes(3 << 20, kMark);
    for (int end = 0; end < 2; ++end) {
        const long sent = door_send(pair.fd(end), bytes.data(), bytes.size(), MSG_DONTWAIT);
        ASSERT_GT(sent, 1 << 20);
        std::vector<unsigned char> back(bytes.size());
        const size_t wanted = unread ? static_cast<size_t>(sent) / 2 : static_cast<size_t>(sent);
        size_t got = 0;
        while (got < wanted) {
            const long part = door_receive(pair.fd(1 - end), back.data(), wanted - got);
            ASSERT_GT(part, 0);
            got += static_cast<size_t>(part);
        }
    }
    const MappedSegment& used = pair.connector().segment;
    EXPECT_TRUE(holds_marks(used.segment, segment_size(used.capacity))) << "this test can fail";
}

TEST(Leftovers, ANewSegmentIsZeros) {
    fill_and_close(true);
    for (int round = 0; round < 4; ++round) {
        int fd = -1;
        MappedSegment fresh = create_segment(kDefaultCapacity, fd);
        ASSERT_TRUE(fresh);
        const auto* const bytes = reinterpret_cast<const unsigned char*>(fresh.segment);
        for (size_t i = sizeof(SegmentHeader); i < segment_size(fresh.capacity); ++i)
            ASSERT_EQ(bytes[i], 0) << i;
        unmap_segment(fresh);
        close(fd);
    }
}

TEST(Leftovers, TheNextConnectionFindsNothing) {
    for (const bool unread : {false, true}) {
        fill_and_close(unread);
        const StreamPair next;
        for (int end = 0; end < 2; ++end) {
            // The same slot, and at the same addresses, as the test above it: what is kept reads as zeros.
            const MappedSegment& kept = next.stream(end).segment;
            EXPECT_FALSE(kept.segment != nullptr && holds_marks(kept.segment, segment_size(kept.capacity)));
        }
        StreamPair fused;
        ASSERT_TRUE(fused.settle());
        for (int end = 0; end < 2; ++end) {
            const MappedSegment& segment = fused.stream(end).segment;
            EXPECT_FALSE(holds_marks(segment.segment, segment_size(segment.capacity)));
        }
    }
}

TEST(Leftovers, TheArenaHoldsNoBytes) {
    fill_and_close(true);
    EXPECT_FALSE(holds_marks(arena(), kArenaHeaderSize + 64 * sizeof(SharedHalf)));
}

}  // namespace
}  // namespace loopfast
