// See arena.h.
#include "table/arena.h"

#include <linux/memfd.h>
#include <sys/mman.h>

#include <atomic>
#include <new>

#include "base/file_size.h"
#include "base/lock.h"
#include "base/sparse.h"
#include "table/table.h"

namespace loopfast {

namespace {

/// Stored last: who sees it sees the table, the streams and the halves.
std::atomic<ArenaHeader*> the_arena{nullptr};
SharedHalf* halves = nullptr;
FamilyLock opening;

void* reserve(size_t size) {
    return map_sparse(nullptr, size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

}  // namespace

bool open_arena() {
    // Acquire pairs with the release below. Two threads may well make a program's first two sockets at once.
    if (the_arena.load(std::memory_order_acquire) != nullptr)
        return true;
    Hold hold(opening);
    if (the_arena.load(std::memory_order_relaxed) != nullptr)
        return true;
    const size_t size = arena_size();
    if (!allowed_file_size(size))
        return false;
    const long fd = sys::call(SYS_memfd_create, sys::word(kArenaName), MFD_CLOEXEC);
    if (fd < 0)
        return false;
    void* memory = nullptr;
    if (set_file_size(static_cast<int>(fd), size) == 0)
        memory = map_sparse(nullptr, size, MAP_SHARED | MAP_NORESERVE, static_cast<int>(fd));
    sys::close(static_cast<int>(fd));
    if (memory == nullptr)
        return false;
    arena_detail::streams = static_cast<Stream*>(reserve(sizeof(Stream) * kSlots));
    auto* table = static_cast<std::atomic<uint64_t>*>(reserve(sizeof(uint64_t) * kMostDescriptors));
    if (arena_detail::streams == nullptr || table == nullptr) {
        // The next socket tries again: what is kept meanwhile would be missing to the program each time.
        if (arena_detail::streams != nullptr)
            sys::munmap(arena_detail::streams, sizeof(Stream) * kSlots);
        if (table != nullptr)
            sys::munmap(table, sizeof(uint64_t) * kMostDescriptors);
        sys::munmap(memory, size);
        arena_detail::streams = nullptr;
        return false;
    }
    halves = reinterpret_cast<SharedHalf*>(static_cast<char*>(memory) + kArenaHeaderSize);
    auto* header = static_cast<ArenaHeader*>(memory);
    header->version = kArenaVersion;
    header->slots = kSlots;
    header->shared_size = sizeof(SharedHalf);
    header->stream_size = sizeof(Stream);
    header->streams_address = reinterpret_cast<uint64_t>(arena_detail::streams);
    header->table_address = reinterpret_cast<uint64_t>(table);
    header->objections_address = reinterpret_cast<uint64_t>(&objection_texts());
    header->descriptors = kMostDescriptors;
    header->magic = kArenaMagic;
    open_table(table);
    the_arena.store(header, std::memory_order_release);
    return true;
}

ArenaHeader* arena() { return the_arena.load(std::memory_order_acquire); }
SharedHalf& shared_half(uint32_t slot) { return halves[slot]; }

int take_slot() {
    if (!open_arena())
        return -1;
    ArenaHeader& header = *arena();
    const uint32_t start = header.hint.load(std::memory_order_relaxed) / 64;
    for (uint32_t i = 0; i < kSlots / 64; ++i) {
        const uint32_t word = (start + i) % (kSlots / 64);
        uint64_t used = header.used[word].load(std::memory_order_relaxed);
        while (used != ~uint64_t{0}) {
            const int bit = __builtin_ctzll(~used);
            // Acquire pairs with the release in free_slot: the last user is done with the halves.
            if (!header.used[word].compare_exchange_weak(used, used | uint64_t{1} << bit,
                                                         std::memory_order_acquire))
                continue;
            const uint32_t slot = word * 64 + static_cast<uint32_t>(bit);
            header.hint.store(slot, std::memory_order_relaxed);
            // The steward may still have an event of the stream that was here before.
            Hold hold(descriptor_lock(slot));
            SharedHalf& shared = halves[slot];
            const uint32_t generation = shared.generation.load(std::memory_order_relaxed) + 1;
            new (&shared) SharedHalf();
            shared.generation.store(generation, std::memory_order_relaxed);
            Stream& stream = stream_at(slot);
            const MappedSegment retired = stream.segment;  // zeros, when the slot was never used
            new (static_cast<StreamWords*>(&stream)) StreamWords();
            stream.segment = retired;
            stream.shared = &shared;
            stream.slot = slot;
            stream.generation = generation;
            return static_cast<int>(slot);
        }
    }
    return -1;
}

void free_slot(uint32_t slot) {
    halves[slot].state.store(State::kFree, std::memory_order_relaxed);
    ArenaHeader& header = *arena();
    // Release pairs with the acquire in take_slot.
    header.used[slot / 64].fetch_and(~(uint64_t{1} << (slot % 64)), std::memory_order_release);
    header.hint.store(slot, std::memory_order_relaxed);
}

void arena_after_fork_in_child() { opening.reset(); }

}  // namespace loopfast
