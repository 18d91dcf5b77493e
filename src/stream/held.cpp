// MSG_MORE and TCP_CORK: bytes that the kernel would hold back until more of them come. Here they are in the
// ring, and the producer's word `held` tells the reader where those begin that it is not to see yet.
//
// For MSG_MORE, only what was put into an empty ring is held, so that a reader that lags is not kept waiting:
// the kernel, too, sends what it holds when what went before was acknowledged. A cork holds whatever lies
// before it. Who sees to it that they are shown in the end: the next send without the flag, or the call that
// takes the cork away; the steward after the time that the kernel would have let pass; and where the sender
// ends, leaves or dies, the reader himself, who sees that on the kernel connection (show_end). A connection
// that relatives hold is not held back: which of them would have to remember may be killed.
#include "stream/sleep.h"
#include "stream/stream.h"

namespace loopfast {

namespace {

/// The kernel's smallest retransmission time, after which it sends what it holds.
constexpr uint64_t kLongest = 200 * kTicksPerMs;
/// The kernel sends from half the largest window that it has seen on.
constexpr uint64_t kMostBytes = 32 * 1024;

/// Streams whose bytes are held, by slot, plus one; and since when.
struct Entry {
    std::atomic<uint64_t> stream;
    std::atomic<uint64_t> since;
};
constexpr int kMostEntries = 64;
Entry entries[kMostEntries];
/// Some have been in use: most processes never hold anything, and need not look. Set before an entry is.
std::atomic<bool> any{false};

bool remember(const Stream& stream) {
    if (!any.load(std::memory_order_relaxed))
        any.store(true, std::memory_order_seq_cst);  // in one order with the entry, and the look at both
    for (Entry& entry : entries) {
        uint64_t free = 0;
        if (entry.stream.load(std::memory_order_relaxed) != 0)
            continue;
        // seq_cst: before the look at the steward's words, see mind(). A time of 0 is "not yet".
        if (!entry.stream.compare_exchange_strong(free, uint64_t{stream.slot} + 1, std::memory_order_seq_cst))
            continue;
        entry.since.store(ticks(), std::memory_order_relaxed);
        if (steward_hooks.mind != nullptr && steward_hooks.mind())
            return true;
        entry.since.store(0, std::memory_order_relaxed);
        entry.stream.store(0, std::memory_order_relaxed);
        return false;
    }
    return false;
}

void forget(const Stream& stream) {
    for (Entry& entry : entries) {
        if (entry.stream.load(std::memory_order_relaxed) != uint64_t{stream.slot} + 1)
            continue;
        entry.since.store(0, std::memory_order_relaxed);
        entry.stream.store(0, std::memory_order_relaxed);
    }
}

}  // namespace

bool hold_back(Stream& stream, size_t size, bool more) {
    const SharedHalf& shared = *stream.shared;
    ProducerLine& line = stream.out().producer;
    auto& held = line.held;
    // Harmless both: only what this side itself holds back, or does not, depends on them.
    const uint64_t head = line.head.load(std::memory_order_relaxed).harmless();
    if (const uint64_t begin = held.load(std::memory_order_relaxed).harmless(); begin != 0)
        return head - (begin - 1) + size <= kMostBytes;
    const bool corked = shared.corked.load(std::memory_order_relaxed) != 0;
    if (size > kMostBytes || (!corked && stream.writer().in_flight(true) != 0))
        return false;
    // Before the head that covers them is swapped, so a reader that sees that one sees this. seq_cst: Dekker
    // with a fork and with an uncork, which say so and then show what is held.
    held.exchange(head + 1, std::memory_order_seq_cst);
    if (shared.had_relatives.load(std::memory_order_seq_cst) == 0 &&
        (more || shared.corked.load(std::memory_order_seq_cst) != 0) && remember(stream))
        return true;
    held.store(0, std::memory_order_relaxed);  // nothing is behind it yet
    return false;
}

void show_held_now(Stream& stream) {
    forget(stream);
    // seq_cst: the publishing half of the pairing in sleep.h, as the swap of a head is.
    if (stream.out().producer.held.exchange(0, std::memory_order_seq_cst).is_set())
        wake_consumer(stream);
}

bool show_overdue(Stream& (*stream_of)(uint32_t slot)) {
    bool some = false;
    if (!any.load(std::memory_order_seq_cst))
        return false;
    for (Entry& entry : entries) {
        const uint64_t slot = entry.stream.load(std::memory_order_seq_cst);
        if (slot == 0)
            continue;
        some = true;
        const uint64_t since = entry.since.load(std::memory_order_relaxed);
        if (since == 0 || ticks() - since < kLongest)
            continue;
        Stream& stream = stream_of(static_cast<uint32_t>(slot - 1));
        const Watching watching(stream);
        if (watching.alive())
            show_held_now(stream);
        else
            forget(stream);
    }
    return some;
}

}  // namespace loopfast
