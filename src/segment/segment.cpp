// See segment.h.
#include "segment/segment.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <atomic>
#include <new>

#include "base/file_size.h"
#include "base/sparse.h"
#include "base/syscall.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace loopfast {

namespace {

// Shrinking kills a reader with SIGBUS, growing wastes memory in the maker's name, and a seal that could
// still be added (F_SEAL_WRITE) would let one end take writing away from the other.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// Nobody makes a segment smaller than the default; below four times the small window the ring's arithmetic
// would know dead ends (room for a poll, none for a send).
static_assert(kDefaultCapacity >= 4 * kSmallWindow);

bool valid_capacity(uint64_t capacity) {
    return capacity >= kDefaultCapacity && capacity <= kLargestCapacity && (capacity & (capacity - 1)) == 0;
}

/// Mappings of segments, those kept for the next connection included. Relaxed: nothing else hangs on it.
std::atomic<uint32_t> mappings{0};
/// So few are no matter for any limit.
constexpr uint32_t kSurelyAllowed = 1024;

/// A process has so many mappings (vm.max_map_count), and fails in its own allocations and threads when there
/// are no more: at most a quarter of them is ours.
uint32_t most_mappings() {
    uint32_t most = most_segments.load(std::memory_order_relaxed);
    if (most != 0)
        return most;
    most = 65530;  // what Linux begins with
    const int fd = static_cast<int>(
        sys::call(SYS_openat, AT_FDCWD, sys::word("/proc/sys/vm/max_map_count"), O_RDONLY | O_CLOEXEC));
    if (fd >= 0) {
        char text[24];
        const long size = sys::read(fd, text, sizeof text);
        uint64_t number = 0;
        for (long i = 0; i < size && text[i] >= '0' && text[i] <= '9'; ++i)
            number = number * 10 + static_cast<uint64_t>(text[i] - '0');
        if (number > 4 && number < UINT32_MAX)
            most = static_cast<uint32_t>(number);
        sys::close(fd);
    }
    most_segments.store(most / 4, std::memory_order_relaxed);
    return most / 4;
}

bool one_mapping_more() {
    const uint32_t before = mappings.fetch_add(1, std::memory_order_relaxed);
    if (before < kSurelyAllowed && most_segments.load(std::memory_order_relaxed) == 0) [[likely]]
        return true;
    if (before < most_mappings())
        return true;
    mappings.fetch_sub(1, std::memory_order_relaxed);
    return false;
}

void unmap(Segment* segment, uint64_t capacity) {
    sys::munmap(segment, segment_size(capacity));
    mappings.fetch_sub(1, std::memory_order_relaxed);
}

bool suits(const MappedSegment& retired, uint64_t capacity) {
    return retired.segment != nullptr && !retired.in_use && retired.capacity == capacity;
}

MappedSegment map(int fd, uint64_t capacity, MappedSegment& retired) {
    const bool again = suits(retired, capacity);
    if (!again && !one_mapping_more())
        return {};
    const size_t size = segment_size(capacity);
    void* const memory = map_sparse(again ? retired.segment : nullptr, size, MAP_SHARED, fd);
    if (memory != nullptr)
        return {static_cast<Segment*>(memory), capacity, true};
    if (again)
        retired = {};  // what is there now is not known: never touched again
    else
        mappings.fetch_sub(1, std::memory_order_relaxed);
    return {};
}

}  // namespace

MappedSegment create_segment(uint64_t capacity, int& fd, MappedSegment& retired) {
    fd = -1;
    if (!valid_capacity(capacity))
        return {};
    const char name[] = "loopfast-segment";
    long made = sys::call(SYS_memfd_create, sys::word(name),
                          MFD_CLOEXEC | MFD_ALLOW_SEALING | static_cast<long>(MFD_NOEXEC_SEAL));
    if (made < 0)  // before Linux 6.3
        made = sys::call(SYS_memfd_create, sys::word(name), MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (made < 0)
        return {};
    const int memory_fd = static_cast<int>(made);
    MappedSegment mapped;
    if (set_file_size(memory_fd, segment_size(capacity)) == 0 &&
        sys::fcntl(memory_fd, F_ADD_SEALS, kSeals) == 0)
        mapped = map(memory_fd, capacity, retired);
    if (!mapped) {
        sys::close(memory_fd);
        return {};
    }
    mapped.segment->header = {kSegmentMagic, kSegmentVersion, sizeof(Segment), capacity};
    fd = memory_fd;
    return mapped;
}

MappedSegment create_segment(uint64_t capacity, int& fd) {
    MappedSegment none;
    return create_segment(capacity, fd, none);
}

MappedSegment map_segment(int fd, MappedSegment& retired) {
    // Only memfds (and shared-memory files that allow sealing) answer this at all. It comes first: a file of
    // a user's own file system may never answer the next one.
    const int seals = sys::fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & kSeals) != kSeals || (seals & F_SEAL_WRITE) != 0)
        return {};
    struct stat status;
    if (sys::call(SYS_fstat, fd, sys::word(&status)) < 0 || !S_ISREG(status.st_mode))
        return {};
    // A memfd of huge pages answers as well, but its pages may be missing when they are touched.
    struct statfs system;
    if (sys::call(SYS_fstatfs, fd, sys::word(&system)) < 0 || system.f_type != TMPFS_MAGIC)
        return {};
    const uint64_t size = static_cast<uint64_t>(status.st_size);
    if (size < kControlSize || (size - kControlSize) % 2 != 0)
        return {};
    const uint64_t capacity = (size - kControlSize) / 2;
    if (!valid_capacity(capacity))
        return {};
    MappedSegment mapped = map(fd, capacity, retired);
    if (!mapped)
        return {};
    // Read once; later changes of the header by the peer are of no consequence, since only the capacity
    // that follows from the sealed size is ever used.
    const volatile SegmentHeader& header = mapped.segment->header;
    if (header.magic != kSegmentMagic || header.version != kSegmentVersion ||
        header.header_size != sizeof(Segment) || header.capacity != capacity)
        drop_segment(mapped, retired);
    return mapped;
}

MappedSegment map_segment(int fd) {
    MappedSegment none;
    return map_segment(fd, none);
}

void unmap_segment(MappedSegment& mapped) {
    if (mapped)
        unmap(mapped.segment, mapped.capacity);
    mapped = {};
}

void retire_segment(MappedSegment& mapped) {
    if (!mapped)
        return;
    if (map_sparse(mapped.segment, segment_size(mapped.capacity), MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1) == nullptr)
        unmap_segment(mapped);  // too many mappings: then the addresses go as well
    mapped.retire();
}

void drop_segment(MappedSegment& mapped, MappedSegment& retired) {
    if (mapped.segment == retired.segment) {
        retire_segment(mapped);
        if (mapped.segment == nullptr)
            retired = {};  // the addresses went as well
    } else {
        unmap_segment(mapped);
    }
    mapped = {};
}

void give_addresses_back(const MappedSegment& retired, const MappedSegment& fresh) {
    if (retired.segment == nullptr || retired.in_use || retired.segment == fresh.segment)
        return;
    unmap(retired.segment, retired.capacity);
}

}  // namespace loopfast
