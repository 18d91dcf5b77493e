// The family's arena: the shared halves of all streams of a process and its forked relatives, in one sparse
// mapping that fork passes on. Made at the first need; a process that never opts in has none.
//
// `loopfast status` finds it by the name of its mapping and reads it from outside, so the header says where
// in this process the private parts lie.
#pragma once

#include <atomic>
#include <cstdint>

#include "stream/stream.h"

namespace loopfast {

constexpr uint64_t kArenaMagic = 0x616e65726166706c;
constexpr uint32_t kArenaVersion = 2;
constexpr uint32_t kSlots = 65536;
constexpr uint32_t kMostDescriptors = 1 << 20;
constexpr char kArenaName[] = "loopfast-family";

struct ArenaHeader {
    uint64_t magic;
    uint32_t version;
    uint32_t slots;
    uint32_t shared_size;         ///< sizeof(SharedHalf)
    uint32_t stream_size;         ///< sizeof(Stream)
    uint64_t streams_address;     ///< Stream[slots], in every process of the family
    uint64_t table_address;       ///< uint64_t[descriptors], see table.h
    uint64_t objections_address;  ///< ObjectionTexts, see policy/verdict.h
    uint32_t descriptors;
    std::atomic<uint32_t> hint;               ///< where the next search for a free slot begins
    std::atomic<uint64_t> used[kSlots / 64];  ///< one bit per slot
};
constexpr uint64_t kArenaHeaderSize = 16384;
static_assert(sizeof(ArenaHeader) <= kArenaHeaderSize);
constexpr uint64_t arena_size() { return kArenaHeaderSize + sizeof(SharedHalf) * kSlots; }

/// Makes the arena if there is none yet. @return false when there is no memory for it.
bool open_arena();

/// nullptr before open_arena.
ArenaHeader* arena();
SharedHalf& shared_half(uint32_t slot);
/// This process's half.
namespace arena_detail {
inline Stream* streams = nullptr;  // set once, before the first slot is taken
}
inline Stream& stream_at(uint32_t slot) { return arena_detail::streams[slot]; }

/// Takes a free slot, its shared half reset but for the generation, which is new. @return the slot, or -1.
int take_slot();
void free_slot(uint32_t slot);

/// In the child of a fork: who was making the arena is a thread of the parent.
void arena_after_fork_in_child();

}  // namespace loopfast
