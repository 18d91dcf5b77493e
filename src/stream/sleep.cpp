// See sleep.h.
#include "stream/sleep.h"

#include "base/alive.h"
#include "base/clock.h"
#include "base/lock.h"
#include "base/own_calls.h"
#include "link/link.h"

namespace loopfast {

namespace {

// The last tokens this thread rang for, by peer process. Four: a server talks to few processes at a time,
// and a miss costs one bell too many.
struct Rung {
    int pid;
    uint64_t token;
};
constexpr int kRemembered = 4;
thread_local Rung rung[kRemembered];
thread_local uint64_t next_epoch = 0;

constexpr int kEpochBits = 40;
constexpr uint64_t kEpochMask = (uint64_t{1} << kEpochBits) - 1;

/// In the word of a sleeper while a thread of the other side is about to ring: this and the thread's id.
/// Thread ids have 22 bits, so no token has these.
constexpr uint64_t kRinging = uint64_t{3} << 62;
constexpr uint64_t kRingingMask = ~uint64_t{0xffffffff};

void ring_for(Stream& stream, Untrusted<uint64_t>& word, uint64_t token) {
    const bool names_a_sleep = token != kAlwaysRing && (token & kRingingMask) != kRinging;
    Rung& remembered = rung[static_cast<unsigned>(stream.peer_pid) % kRemembered];
    if (names_a_sleep && stream.peer_pid != 0 && remembered.pid == stream.peer_pid &&
        remembered.token == token)
        return;
    stream.shared->counters.bells.fetch_add(1, std::memory_order_relaxed);
    if (stream.peer_pid == owner_process.load(std::memory_order_relaxed))
        note_own_call();
    switch (send_note(stream.link.load(std::memory_order_relaxed), Note::kBell)) {
    case Sent::kYes:
        if (names_a_sleep && stream.peer_pid != 0)
            remembered = {stream.peer_pid, token};
        break;
    case Sent::kFull:
        break;
    case Sent::kNobody:
        // The peer closed, died, or left the ring: whoever publishes looks closer, and so does the next one.
        stream.link_down.store(true, std::memory_order_relaxed);
        word.exchange(kAlwaysRing, std::memory_order_seq_cst);
        break;
    }
}

}  // namespace

uint64_t new_sleep_token() {
    // The epoch starts at the time of day in microseconds, so that a later thread with the same id does not
    // repeat the tokens of an earlier one.
    if (next_epoch == 0)
        next_epoch = static_cast<uint64_t>(now_ns()) / 1000;
    ++next_epoch;
    const uint64_t token = static_cast<uint64_t>(my_tid()) << kEpochBits | (next_epoch & kEpochMask);
    return token == kAwake || token == kAlwaysRing ? 1 : token;
}

void ring_sleeper(Stream& stream, Untrusted<uint64_t>& word) {
    // While this thread rings, its own mark stands in the word in place of the token: were it killed before
    // it has rung, the next publisher would find a word that is not kAwake and ring in its place. seq_cst:
    // the publishing half of the pairing in sleep.h. Harmless: the token is only compared, with tokens that
    // came from the same process.
    const uint64_t mark = kRinging | my_tid();
    const uint64_t token = word.exchange(mark, std::memory_order_seq_cst).harmless();
    if (token != kAwake)
        ring_for(stream, word, token);
    // seq_cst as above. Another's mark or a new token stays.
    word.replace(mark, kAwake, std::memory_order_seq_cst);
}

void ring_both(Stream& stream) {
    wake_consumer(stream);
    wake_producer(stream);
}

}  // namespace loopfast
