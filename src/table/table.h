// Descriptor -> stream (or epoll set). One array, one load; a descriptor that is neither costs no more.
//
// An entry names the slot and the generation of its connection, so that an entry that outlived its
// connection is recognised instead of being taken for the slot's next one.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/own_calls.h"
#include "table/arena.h"

namespace loopfast {

enum class EntryKind : uint64_t { kNone = 0, kStream = 1, kSet = 2 };

/// kind (2 bits), index (30 bits), generation (32 bits).
class TableEntry {
public:
    TableEntry() = default;
    explicit TableEntry(uint64_t packed) : packed_(packed) {}
    TableEntry(EntryKind kind, uint32_t index, uint32_t generation)
        : packed_(static_cast<uint64_t>(kind) | uint64_t{index} << 2 | uint64_t{generation} << 32) {}
    EntryKind kind() const { return static_cast<EntryKind>(packed_ & 3); }
    uint32_t index() const { return static_cast<uint32_t>(packed_ >> 2 & 0x3fffffff); }
    uint32_t generation() const { return static_cast<uint32_t>(packed_ >> 32); }
    uint64_t packed() const { return packed_; }

private:
    uint64_t packed_ = 0;
};

namespace table_detail {
inline std::atomic<uint64_t>* entries = nullptr;
inline std::atomic<uint32_t> limit{0};  // 0 until there is a table: every lookup then says "none"
inline std::atomic<uint32_t> end{0};    // above every descriptor that ever had an entry
inline std::atomic<bool> streams_made{false};
inline std::atomic<bool> room_lacked{false};
}  // namespace table_detail

/// False until this process had its first stream: one that never opts in is left alone. (It may well have
/// epoll sets, and a table for them.)
inline bool had_streams() { return table_detail::streams_made.load(std::memory_order_relaxed); }

/// Some socket that opted in could not be made a stream, for want of memory or slots.
inline bool lacked_room() { return table_detail::room_lacked.load(std::memory_order_relaxed); }

void open_table(std::atomic<uint64_t>* entries);

inline TableEntry find(int fd) {
    if (static_cast<uint32_t>(fd) >= table_detail::limit.load(std::memory_order_acquire)) [[unlikely]]
        return {};
    // Both acquire: the limit pairs with open_table(), the entry with set_entry(): who finds it finds the
    // stream or set that it names as its maker left it.
    return TableEntry(table_detail::entries[fd].load(std::memory_order_acquire));
}

/// The stream behind `fd`, or nullptr.
inline Stream* find_stream(int fd) {
    // A process that never opted in has no table, and pays for this one look.
    if (static_cast<uint32_t>(fd) >= table_detail::limit.load(std::memory_order_relaxed))
        return nullptr;
    const TableEntry entry = find(fd);
    if (entry.kind() != EntryKind::kStream) [[likely]] {
        note_own_call();  // of some other descriptor's
        return nullptr;
    }
    Stream& stream = stream_at(entry.index());
    return stream.generation.load(std::memory_order_relaxed) == entry.generation() ? &stream : nullptr;
}

/// A new stream for `fd`, in state kIdle. @return nullptr when there is no room (it stays an ordinary
/// descriptor then).
Stream* make_stream(int fd);

/// `copy` is a duplicate of `fd` that the kernel just made.
void duplicated(int fd, int copy);

/// Before and after the kernel closes `fd`. What `before_close` returns goes to `after_close`.
TableEntry before_close(int fd);
void after_close(int fd, TableEntry entry);

/// The whole close of a descriptor that the program does not know.
void close_kept(int fd);
/// The last blocking call on the stream is over: what was kept for such calls is closed.
void let_go_of_kept(Stream& stream);

/// `fd` is a descriptor that the kernel just made, whatever stood under its number before is gone.
inline void appeared(int fd) {
    if (find(fd).kind() != EntryKind::kNone) [[unlikely]]
        after_close(fd, before_close(fd));
}

void set_entry(int fd, TableEntry entry);

/// In the child of vfork or of a raw clone we run on the parent's memory: its tables must not change.
/// One system call; only asked where a stream's or a set's entry would change.
bool in_borrowed_memory();

/// The lowest descriptor above `from` that has an entry, or -1.
int next_entry(int from);

/// Under it the `descriptor` of the slot's stream is changed, and used by whoever comes without a descriptor
/// of his own: while it is held that number is not closed, and the slot not given to another stream.
FamilyLock& descriptor_lock(uint32_t slot);

/// Calls `visit` for each stream that this process holds.
template <typename Visit> void for_each_stream(Visit visit) {
    ArenaHeader* const header = arena();
    if (header == nullptr || !had_streams())
        return;
    for (uint32_t word = 0; word < kSlots / 64; ++word) {
        uint64_t used = header->used[word].load(std::memory_order_relaxed);
        for (; used != 0; used &= used - 1) {
            const uint32_t slot = word * 64 + static_cast<uint32_t>(__builtin_ctzll(used));
            Stream& stream = stream_at(slot);
            if (stream.shared != nullptr && stream.local_refs.load(std::memory_order_relaxed) > 0)
                visit(stream);
        }
    }
}

/// Prepares for fork: called in the parent before, in the parent after, and in the child.
void before_fork();
void after_fork_in_parent();
void after_fork_in_child();

/// Around exec: a program that is executed holds what stays open over it, and nothing else. In between only
/// if it failed.
void before_exec();
void after_failed_exec();

/// What epoll sets do when a stream, or the set itself, goes away; set once at start.
struct TableHooks {
    void (*stream_closing)(Stream& stream) = nullptr;
    /// Before a descriptor of a stream with calls under way is closed: those that will never return.
    void (*end_jumped_calls)() = nullptr;
    /// Whether the calling thread itself is in the middle of an attempt on the stream (wait/caller.h).
    bool (*reaches)(const Stream& stream) = nullptr;
    /// Its calls on the stream that lie below this one, in a handler, keep nothing. @return how many.
    int (*overtake_calls)(const Stream& stream) = nullptr;
    /// A descriptor of a set is about to be closed; threads that wait in it keep the set.
    void (*set_closing)(uint32_t index, int fd) = nullptr;
    void (*descriptor_closing)(Stream& stream, int fd, int other) = nullptr;
    void (*set_closed)(uint32_t index) = nullptr;
    void (*forked)() = nullptr;
    void (*steward_forked)() = nullptr;
};
inline TableHooks table_hooks;

}  // namespace loopfast
