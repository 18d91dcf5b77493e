// Making and accepting a segment: a sealed memfd, mapped by both ends.
#pragma once

#include <atomic>
#include <cstdint>

#include "segment/layout.h"

namespace loopfast {

/// A segment in this process's memory. The descriptor is not needed once it is mapped.
struct MappedSegment {
    Segment* segment = nullptr;
    uint64_t capacity = 0;
    bool in_use = false;  ///< false with an address: retired, see retire_segment

    /// Acquire pairs with install(): whoever looks without a lock and finds it there finds the addresses as
    /// well.
    explicit operator bool() const {
        return std::atomic_ref<bool>(const_cast<bool&>(in_use)).load(std::memory_order_acquire);
    }
    /// Takes over `fresh`, for others to see at once. Release pairs with the look above; so does retire()'s.
    void install(const MappedSegment& fresh) {
        segment = fresh.segment;
        capacity = fresh.capacity;
        std::atomic_ref<bool>(in_use).store(fresh.in_use, std::memory_order_release);
    }
    void retire() { std::atomic_ref<bool>(in_use).store(false, std::memory_order_release); }
    unsigned char* data(int direction) const {
        return reinterpret_cast<unsigned char*>(segment) + kControlSize +
               static_cast<uint64_t>(direction) * capacity;
    }
};

/// How many segments a process maps at most, the addresses that it keeps for later included: a quarter of
/// what the kernel allows it to map. 0: not asked yet.
inline std::atomic<uint32_t> most_segments{0};

/// Creates and maps a segment with `capacity` bytes (a power of two) per direction. Its descriptor is
/// stored in `fd`; it can neither shrink nor grow, so no mapping of it can be made to fault.
/// `retired`: at its addresses, where they suit. (Not moved there afterwards: moving costs as much as a dozen
/// faults, and the pages that were touched are faulted in anew.)
/// @return a null segment when there is no memory or no descriptor left, or the process maps too many.
MappedSegment create_segment(uint64_t capacity, int& fd, MappedSegment& retired);
MappedSegment create_segment(uint64_t capacity, int& fd);

/// Maps a segment that a peer sent. Everything about it is checked first: that it is a memfd that can no
/// longer change its size, that the size is what its header promises, that magic and version are ours.
/// @return a null segment when anything is not as it must be.
MappedSegment map_segment(int fd, MappedSegment& retired);
MappedSegment map_segment(int fd);

void unmap_segment(MappedSegment& mapped);

/// Gives the memory back but not the addresses, which read as zeros from here on: another thread that was
/// about to look at a word when the descriptor was closed must find a harmless value there, not a fault.
void retire_segment(MappedSegment& mapped);

/// A segment that is not to be used after all; `retired` is what it was made with.
void drop_segment(MappedSegment& mapped, MappedSegment& retired);

/// The addresses of the `retired` one, unless `fresh` took them over.
void give_addresses_back(const MappedSegment& retired, const MappedSegment& fresh);

}  // namespace loopfast
