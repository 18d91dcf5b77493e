// Arming: how a sleep and a publication meet without a lost wake-up and without a wasted one.
//
// A sleeper writes its token into the segment, looks once more, and sleeps in the kernel on the link (and
// on the kernel socket). Whoever publishes afterwards finds the token, takes it away, and rings. Both steps
// of both sides are sequentially consistent read-modify-writes, so one of the two sees the other:
//
//     sleeper:    swap token in        then  load cursor
//     publisher:  swap cursor          then  load token
//
// One sleep may arm many streams (an event loop with fifty connections). A token names one sleep of one
// thread; whoever has rung for a token already need not ring for it again on another stream to the same
// process, since that sleep is over and its thread disarms and rescans everything it armed. Which process a
// link leads to is the kernel's word (SO_PEERCRED), so nobody can spend somebody else's wake-up.
// models/arming.pml checks this.
#pragma once

#include <cstdint>

#include "stream/stream.h"

namespace loopfast {

/// A token for one sleep of this thread; never used twice.
uint64_t new_sleep_token();

/// Sleeping side. Another waiter's token in the word makes it kAlwaysRing, which every publication rings.
inline void arm_word(Untrusted<uint64_t>& word, uint64_t token) {
    // seq_cst, first half of the pairing above.
    if (!word.replace(kAwake, token, std::memory_order_seq_cst)) {
        if (!word.load(std::memory_order_relaxed).equals(token))
            word.exchange(kAlwaysRing, std::memory_order_seq_cst);
    }
}
/// Awake again: takes the token out if it is still there. An exchange, so that a publisher that took the
/// token just before has its bytes seen by the scan that follows (acquire of its release).
inline void disarm_word(Untrusted<uint64_t>& word, uint64_t token) {
    word.replace(token, kAwake, std::memory_order_seq_cst);
}

/// Whether the peer that this thread published for last was awake then. It may be spinning, and then its
/// answer comes before a sleep would be worth its cost.
inline thread_local bool peer_was_awake = false;

/// Publishing side, after the cursor was swapped.
[[gnu::noinline]] void ring_sleeper(Stream& stream, Untrusted<uint64_t>& word);

inline void wake_consumer(Stream& stream) {
    // Second half of the pairing; the swap of `head` before it was sequentially consistent.
    auto& word = stream.out().sleep.consumer;
    peer_was_awake = word.load(std::memory_order_seq_cst).equals(kAwake);
    if (!peer_was_awake)
        ring_sleeper(stream, word);
}

/// The peer's producer sleeps for room; rung when a third of the ring is free again.
inline void wake_producer(Stream& stream) {
    auto& word = stream.in().sleep.producer;
    if (!word.load(std::memory_order_seq_cst).equals(kAwake)) [[unlikely]]
        ring_sleeper(stream, word);
}

/// Rings whatever is armed: something other than a cursor changed.
void ring_both(Stream& stream);

}  // namespace loopfast
