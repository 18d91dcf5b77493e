// Segments: what we make can be mapped by a peer and can never change its size; what is not exactly that is
// refused, and refusing leaves nothing behind.
#include "segment/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

namespace loopfast {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

int open_descriptors() {
    int count = 0;
    for (int fd = 0; fd < 1024; ++fd)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/// A memfd as a peer could send it: by default exactly as it should be.
struct Forged {
    uint64_t size = segment_size(kDefaultCapacity);
    int seals = kSeals;
    SegmentHeader header{kSegmentMagic, kSegmentVersion, sizeof(Segment), kDefaultCapacity};
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

    int make() const {
        const int fd = memfd_create("forged", flags);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(ftruncate(fd, static_cast<off_t>(size)), 0);
        const ssize_t length = static_cast<ssize_t>(size < sizeof header ? size : sizeof header);
        EXPECT_EQ(pwrite(fd, &header, static_cast<size_t>(length), 0), length);
        EXPECT_TRUE(seals == 0 || fcntl(fd, F_ADD_SEALS, seals) == 0) << strerror(errno);
        return fd;
    }
};

bool accepted(int fd) {
    const int before = open_descriptors();
    MappedSegment mapped = map_segment(fd);
    const bool good = static_cast<bool>(mapped);
    unmap_segment(mapped);
    EXPECT_EQ(open_descriptors(), before);
    if (fd >= 0)
        close(fd);
    return good;
}

// The kernel lets a process map only so much, and the program is to have the most of that.
TEST(Segment, AreMappedUpToALimitOnly) {
    const uint32_t before = most_segments.exchange(3);
    MappedSegment made[4];
    int fds[4];
    for (int round = 0; round < 2; ++round) {  // what is unmapped counts no more
        for (int i = 0; i < 4; ++i) {
            made[i] = create_segment(kDefaultCapacity, fds[i]);
            EXPECT_EQ(static_cast<bool>(made[i]), i < 3);
        }
        EXPECT_FALSE(map_segment(fds[0])) << "nor one more of a peer's";
        // Addresses that are kept count, and are good for another one.
        MappedSegment kept = made[0];
        retire_segment(kept);
        int other = -1;
        EXPECT_FALSE(create_segment(kDefaultCapacity, other));
        made[0] = create_segment(kDefaultCapacity, other, kept);
        EXPECT_TRUE(made[0]);
        for (int i = 0; i < 3; ++i) {
            close(fds[i]);
            unmap_segment(made[i]);
        }
        close(other);
    }
    most_segments.store(before);
}

TEST(SegmentTest, IsMadeSealedAndMapsTwice) {
    int fd = -1;
    MappedSegment ours = create_segment(kDefaultCapacity, fd);
    ASSERT_TRUE(ours);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(ours.capacity, kDefaultCapacity);
    EXPECT_EQ(fcntl(fd, F_GET_SEALS) & kSeals, kSeals);
    EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    struct stat status {};
    ASSERT_EQ(fstat(fd, &status), 0);
    EXPECT_EQ(static_cast<uint64_t>(status.st_size), segment_size(kDefaultCapacity));
    EXPECT_LE(status.st_blocks, 8) << "one page until data comes";

    MappedSegment theirs = map_segment(fd);
    ASSERT_TRUE(theirs);
    EXPECT_EQ(theirs.capacity, kDefaultCapacity);
    ours.data(1)[5] = 'x';
    EXPECT_EQ(theirs.data(1)[5], 'x');
    ours.segment->direction[0].producer.head.store(7, std::memory_order_relaxed);
    EXPECT_TRUE(theirs.segment->direction[0].producer.head.load(std::memory_order_relaxed).equals(7));

    // Nobody who has the descriptor can take the memory away from under us.
    EXPECT_EQ(ftruncate(fd, 4096), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(ftruncate(fd, 1 << 30), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    const std::string again = "/proc/self/fd/" + std::to_string(fd);
    EXPECT_EQ(open(again.c_str(), O_RDWR | O_TRUNC), -1);
    EXPECT_EQ(ours.data(1)[5], 'x');

    // A hole is all that can be made: it reads as zeros.
    ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                        static_cast<off_t>(segment_size(kDefaultCapacity))),
              0);
    EXPECT_EQ(ours.data(1)[5], 0);
    close(fd);
    unmap_segment(ours);
    unmap_segment(theirs);
    EXPECT_FALSE(ours);
}

TEST(SegmentTest, TakesOverTheAddressesOfARetiredOne) {
    int fd = -1;
    MappedSegment used = create_segment(kDefaultCapacity, fd);
    ASSERT_TRUE(used);
    close(fd);
    used.data(0)[9] = 'x';
    const Segment* const place = used.segment;
    MappedSegment live = used;
    EXPECT_NE(create_segment(kDefaultCapacity, fd, live).segment, place) << "that one is in use";
    close(fd);

    retire_segment(used);
    EXPECT_FALSE(used);
    EXPECT_EQ(used.data(0)[9], 0);
    MappedSegment next = create_segment(kDefaultCapacity, fd, used);
    ASSERT_TRUE(next);
    EXPECT_EQ(next.segment, place);
    EXPECT_EQ(next.data(0)[9], 0);
    next.data(0)[9] = 'y';
    give_addresses_back(used, next);  // they are the new one's
    EXPECT_EQ(next.data(0)[9], 'y');

    // What is not used after all leaves the addresses as they were: retired, and zeros.
    drop_segment(next, used);
    EXPECT_FALSE(next);
    EXPECT_EQ(used.segment, place);
    EXPECT_EQ(used.data(0)[9], 0);

    // One that is refused does so, too.
    const Forged strange{.header = {kSegmentMagic + 1, kSegmentVersion, sizeof(Segment), kDefaultCapacity}};
    const int forged = strange.make();
    EXPECT_FALSE(map_segment(forged, used));
    close(forged);
    EXPECT_EQ(used.segment, place);
    EXPECT_EQ(used.segment->header.magic, 0U);

    // One of another size does not fit.
    MappedSegment larger = create_segment(2 * kDefaultCapacity, fd, used);
    ASSERT_TRUE(larger);
    EXPECT_NE(larger.segment, place);
    close(fd);
    give_addresses_back(used, larger);
    unsigned char seen;
    EXPECT_EQ(mincore(used.segment, 4096, &seen), -1) << "they are gone";
    unmap_segment(larger);
}

TEST(SegmentTest, CapacitiesThatNobodyMakesAreRefused) {
    int fd = 5;
    for (const uint64_t capacity :
         {uint64_t{0}, uint64_t{1}, uint64_t{4096}, kDefaultCapacity / 2, kDefaultCapacity + 4096,
          3 * kDefaultCapacity, 2 * kLargestCapacity, uint64_t{1} << 63, ~uint64_t{0}}) {
        EXPECT_FALSE(create_segment(capacity, fd)) << capacity;
        EXPECT_EQ(fd, -1);
    }
    MappedSegment largest = create_segment(kLargestCapacity, fd);
    EXPECT_TRUE(largest);
    close(fd);
    unmap_segment(largest);
}

TEST(SegmentTest, AGoodForgeryPasses) { EXPECT_TRUE(accepted(Forged{}.make())); }

TEST(SegmentTest, MissingSealsAreRefused) {
    for (const int missing : {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL, kSeals}) {
        Forged forged;
        forged.seals = kSeals & ~missing;
        EXPECT_FALSE(accepted(forged.make())) << missing;
    }
}

TEST(SegmentTest, SealsAgainstWritingAreRefused) {
    for (const int more : {F_SEAL_WRITE, F_SEAL_FUTURE_WRITE}) {
        Forged forged;
        forged.seals = kSeals | more;
        EXPECT_FALSE(accepted(forged.make())) << more;
    }
}

TEST(SegmentTest, WrongSizesAreRefused) {
    const uint64_t good = segment_size(kDefaultCapacity);
    for (const uint64_t size :
         {uint64_t{0}, uint64_t{1}, uint64_t{64}, uint64_t{kControlSize}, uint64_t{kControlSize} + 2,
          good - 1, good + 1, good - 4096, good + 4096, segment_size(kDefaultCapacity / 2), 2 * good,
          segment_size(2 * kLargestCapacity), uint64_t{1} << 40}) {
        Forged forged;
        forged.size = size;
        EXPECT_FALSE(accepted(forged.make())) << size;
        forged.header.capacity = size > kControlSize ? (size - kControlSize) / 2 : 0;
        EXPECT_FALSE(accepted(forged.make())) << size << " with a header that says so";
    }
}

TEST(SegmentTest, WrongHeadersAreRefused) {
    Forged forged;
    forged.header.magic ^= 1;
    EXPECT_FALSE(accepted(forged.make()));
    forged = {};
    forged.header.version = kSegmentVersion + 1;
    EXPECT_FALSE(accepted(forged.make()));
    forged = {};
    forged.header.header_size += 64;
    EXPECT_FALSE(accepted(forged.make()));
    forged = {};
    forged.header.capacity = 2 * kDefaultCapacity;
    EXPECT_FALSE(accepted(forged.make())) << "the header promises more than there is";
    forged.header.capacity = kDefaultCapacity / 2;
    EXPECT_FALSE(accepted(forged.make()));
    forged.header = {};
    EXPECT_FALSE(accepted(forged.make()));
}

TEST(SegmentTest, OtherKindsOfDescriptorAreRefused) {
    EXPECT_FALSE(accepted(-1));
    EXPECT_FALSE(accepted(1023)) << "not open";
    EXPECT_FALSE(accepted(open("/dev/null", O_RDWR)));
    EXPECT_FALSE(accepted(open("/dev/zero", O_RDWR)));
    EXPECT_FALSE(accepted(open("/proc/self/exe", O_RDONLY)));
    EXPECT_FALSE(accepted(open("/", O_RDONLY | O_DIRECTORY)));
    EXPECT_FALSE(accepted(socket(AF_INET, SOCK_STREAM, 0)));
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    EXPECT_FALSE(accepted(ends[0]));
    EXPECT_FALSE(accepted(ends[1]));
    // A regular file of the right size and contents: its owner can truncate it.
    FILE* const file = tmpfile();
    ASSERT_NE(file, nullptr);
    const int fd = dup(fileno(file));
    fclose(file);
    ASSERT_EQ(ftruncate(fd, static_cast<off_t>(segment_size(kDefaultCapacity))), 0);
    const Forged forged;
    ASSERT_EQ(pwrite(fd, &forged.header, sizeof forged.header, 0),
              static_cast<ssize_t>(sizeof forged.header));
    EXPECT_FALSE(accepted(fd));
    // A good one that is open for reading only.
    const int good = forged.make();
    const std::string path = "/proc/self/fd/" + std::to_string(good);
    EXPECT_FALSE(accepted(open(path.c_str(), O_RDONLY)));
    close(good);
}

}  // namespace
}  // namespace loopfast
