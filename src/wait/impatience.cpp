// See impatience.h.
#include "wait/impatience.h"

#include <fcntl.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "base/lock.h"
#include "link/identity.h"
#include "table/table.h"

namespace loopfast {

namespace {

/// A stream that was found full, and what was seen of it: for the steward alone, but for `stream`.
struct Entry {
    std::atomic<uint64_t> stream;  ///< generation and slot, plus one; 0: free
    uint64_t tail;
    int64_t since;  ///< 0: not looked at yet
};
/// Of more than these the rest waits until there is a place: each of them says so again when it finds no
/// room.
constexpr int kMostEntries = 64;
Entry entries[kMostEntries];
bool (*mind_them)() = nullptr;
/// The descriptor by which the steward leaves a ring right now, or -1. One that a child of a fork kept would
/// keep the connection from ending.
std::atomic<int> leaving_by{-1};

uint64_t name_of(const Stream& stream) {
    return (uint64_t{stream.generation.load(std::memory_order_relaxed)} << 32 | stream.slot) + 1;
}

/// It was found full by who says so here, who looks at the entries after that; the steward gives one free
/// before its last look at the room (leave_full_rings): one of them finds what the other did.
void note_full(Stream& stream) {
    const uint64_t name = name_of(stream);
    // Pairs with the fence in leave_full_rings: of a ring that was filled and an entry that was given free,
    // one of the two sides sees the other's.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (const Entry& entry : entries)
        if (entry.stream.load(std::memory_order_relaxed) == name)
            return;
    for (Entry& entry : entries) {
        uint64_t free = 0;
        if (entry.stream.load(std::memory_order_relaxed) != 0 ||
            !entry.stream.compare_exchange_strong(free, name, std::memory_order_seq_cst))
            continue;
        if (!mind_them())
            entry.stream.store(0, std::memory_order_relaxed);
        return;
    }
}

bool is_full(const Stream& stream) {
    return stream.state() == State::kFused && stream.out_in_ring() &&
           stream.shared->user_timeout.load(std::memory_order_relaxed) != 0 && !has_room(stream);
}

/// Leaves through a descriptor of our own: the program's may be closed at any moment, and the lock that keeps
/// it open must not be held where the locks of sets are taken. @return false when it is to be tried again.
bool leave_full_ring(Stream& stream, uint32_t generation) {
    int own;
    {
        Hold hold(descriptor_lock(stream.slot));
        const int fd = stream.descriptor.load(std::memory_order_relaxed);
        if (fd < 0 || stream.generation.load(std::memory_order_relaxed) != generation)
            return true;
        // The number may mean something else by now, where we did not see it closed.
        const uint64_t cookie = cookie_of(fd);
        if (cookie != stream.cookie)
            return cookie != 0 || sys::fcntl(fd, F_GETFD) == -EBADF;
        own = hide_copy(fd);
        leaving_by.store(own, std::memory_order_relaxed);
    }
    if (own < 0)
        return false;
    // Who takes nothing out takes nothing back either: what it sent before stays readable, as in the kernel.
    const bool left = leave(stream, own, Reason::kOption, Unread::kKept) || !stream.out_in_ring();
    leaving_by.store(-1, std::memory_order_relaxed);
    close_hidden(own);
    return left;
}

/// @return false when the stream need not be looked at any more.
bool see_to(Entry& entry, uint64_t name) {
    const auto generation = static_cast<uint32_t>((name - 1) >> 32);
    Stream& stream = stream_at(static_cast<uint32_t>(name - 1));
    const Watching watching(stream);
    if (!watching.alive() || stream.generation.load(std::memory_order_relaxed) != generation ||
        !is_full(stream))
        return false;
    // Harmless: only compared.
    const uint64_t tail = stream.out().consumer.tail.load(std::memory_order_relaxed).harmless();
    const int64_t now = now_ns();
    if (entry.since == 0 || tail != entry.tail) {
        entry.tail = tail;
        entry.since = now;
        return true;
    }
    const uint32_t milliseconds = stream.shared->user_timeout.load(std::memory_order_relaxed);
    return now - entry.since < milliseconds * int64_t{1'000'000} || !leave_full_ring(stream, generation);
}

}  // namespace

void connect_impatience(bool (*mind)()) {
    mind_them = mind;
    steward_hooks.found_no_room = note_full;
}

bool leave_full_rings() {
    bool some = false;
    for (Entry& entry : entries) {
        const uint64_t name = entry.stream.load(std::memory_order_acquire);  // pairs with the claim
        if (name == 0)
            continue;
        if (see_to(entry, name)) {
            some = true;
            continue;
        }
        entry.since = 0;
        // Free before the last look: see note_full.
        entry.stream.store(0, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the one in note_full
        Stream& stream = stream_at(static_cast<uint32_t>(name - 1));
        const Watching watching(stream);
        if (watching.alive() && name_of(stream) == name && is_full(stream)) {
            note_full(stream);
            some = true;
        }
    }
    return some;
}

void forget_full_rings() {
    close_hidden(leaving_by.exchange(-1, std::memory_order_relaxed));  // of the parent's steward
    for (Entry& entry : entries) {
        entry.since = 0;
        entry.stream.store(0, std::memory_order_relaxed);
    }
}

}  // namespace loopfast
