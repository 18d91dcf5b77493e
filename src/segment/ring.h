// The elastic ring: one direction's bytes, one producer, one consumer, in memory that both can write.
//
// Two demands pull apart. While the reader keeps up the bytes should live in a page or two that stay in the
// cache; when it lags, megabytes must fit. So a position's place in memory follows from the last *jump
// record* at or before it:
//
//     RESTART at p   from p on, bytes lie at (position - p) within the small window, which wraps
//     GROW at p      from p on, bytes lie at (position - p + window) within the whole capacity
//
// The producer restarts when the ring is empty and the page is used up, and grows when the small window is
// full. Record n is written to slot n & 1, before the head that first covers it, and only once the consumer
// has passed record n - 2 (its tail is beyond it), so a record is never overwritten unread. The low bits of
// a record hold n modulo 4, which tells a new one from the one two before.
//
// Both sides commit by one compare-and-swap of their cursor in shared memory, and start again when it
// fails: a relative that was killed between copy and commit leaves nothing behind, a peer that scribbles on
// the cursor is noticed, and a signal handler may run a whole read in the middle of another one. (Not a
// whole write: the interrupted one would resume its copy into bytes that the handler has published. So a
// write on top of its own thread's write is turned away, see send_some.) The swap is also the full barrier
// that arming needs, see sleep.h.
//
// Cursors are believed as far as they cannot hurt: head - tail must not exceed the capacity, and every
// place in memory is masked. A peer that writes nonsense garbles its own connection and no other.
// models/ring.pml checks the rules above exhaustively.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "segment/layout.h"

namespace loopfast {

/// A jump record: offset << 3 | kind << 2 | number modulo 4. The zero record is a RESTART at 0, number 0.
class Jump {
public:
    enum Kind : uint64_t { kRestart = 0, kGrow = 1 };
    Jump() = default;
    explicit Jump(uint64_t packed) : packed_(packed) {}
    Jump(uint64_t at, Kind kind, uint64_t number) : packed_(at << 3 | kind << 2 | (number & 3)) {}

    uint64_t packed() const { return packed_; }
    uint64_t at() const { return packed_ >> 3; }
    Kind kind() const { return static_cast<Kind>(packed_ >> 2 & 1); }
    uint64_t number() const { return packed_ & 3; }
    bool follows(Jump other) const { return number() == ((other.number() + 1) & 3); }

    /// Where position `p` lies, and how many bytes from there on are contiguous. Any record and position
    /// give a place inside the capacity: both results are masked.
    size_t place(uint64_t p, uint64_t capacity) const {
        const uint64_t mask = window(capacity) - 1;
        return (kind() == kRestart ? p - at() : p - at() + small(capacity)) & mask;
    }
    uint64_t window(uint64_t capacity) const { return kind() == kRestart ? small(capacity) : capacity; }
    static uint64_t small(uint64_t capacity) { return capacity < kSmallWindow ? capacity : kSmallWindow; }

private:
    uint64_t packed_ = 0;
};

/// What the producing side keeps for itself, in memory that the peer cannot write.
struct ProducerState {
    std::atomic<uint64_t> jump{0};           ///< the current record
    std::atomic<uint64_t> previous_jump{0};  ///< the one before
    std::atomic<uint64_t> tail{0};           ///< the consumer's tail as last seen; never beyond the real one
    std::atomic<uint64_t> high_water{0};     ///< furthest place in memory used since pages were given back
};

/// What the consuming side keeps for itself. Two records, because a reader may be killed between taking a
/// record and moving its tail past it: a tail before `jump` is placed by `previous_jump`.
struct ConsumerState {
    std::atomic<uint64_t> jump{0};
    std::atomic<uint64_t> previous_jump{0};
    /// The position from which on nothing is this consumer's any more, plus one; 0: there is none. See
    /// keeps_unread in stream/leave.cpp.
    std::atomic<uint64_t> limit{0};
};

/// What a ring operation came to.
struct RingResult {
    enum Status { kDone, kFault, kBroken } status;
    size_t size;  ///< bytes moved
};

/// A position in a program's vector of buffers.
class Buffers {
public:
    Buffers(const iovec* parts, size_t count) : parts_(parts), count_(count) {}
    /// Fills at most `capacity` entries of `parts` with what is left, `size` bytes at most. @return how many.
    int parts(iovec* parts, int capacity, size_t size) const;
    /// Calls `act` with a message whose vector is what is left, `size` bytes at most: on a small stack where
    /// there are few parts, which is nearly always.
    template <typename Act> long with_parts(size_t size, Act act) const {
        return count_ <= kFewParts ? with_array<kFewParts>(size, act) : with_array<kMostParts>(size, act);
    }
    /// Skips `size` bytes; used when one operation continues where another stopped.
    void skip(size_t size);
    /// Copies up to `size` bytes between here and `memory`; returns false on a bad buffer.
    bool copy_in(void* memory, size_t size);         ///< from the buffers into `memory`
    bool copy_out(const void* memory, size_t size);  ///< from `memory` into the buffers
private:
    static constexpr int kFewParts = 16;
    static constexpr int kMostParts = 1024;  ///< IOV_MAX
    template <int kCapacity, typename Act> [[gnu::noinline]] long with_array(size_t size, Act act) const {
        iovec array[kCapacity];
        msghdr message{};
        message.msg_iov = array;
        message.msg_iovlen = static_cast<size_t>(parts(array, kCapacity, size));
        return act(message);
    }
    template <typename Step> bool each(size_t size, Step step);
    const iovec* parts_;
    size_t count_;
    size_t offset_ = 0;
};

/// The producing end. A view: constructed for an operation, holds nothing.
class RingWriter {
public:
    RingWriter(Direction& direction, ProducerState& state, unsigned char* data, uint64_t capacity)
        : line_(direction.producer), peer_(direction.consumer), state_(state), data_(data),
          capacity_(capacity) {}

    /// Appends up to `size` bytes from `from`, at most `limit` being in flight afterwards. One call may stop
    /// short of what there is room for (at a change of window): call again until it takes nothing. The
    /// caller holds the sending lock. `may_grow`: leave the small window rather than report it full.
    RingResult write(Buffers from, size_t size, uint64_t limit, bool may_grow);

    /// Room for at least one more byte under `limit`? And how much is in flight (capacity + 1: nonsense).
    uint64_t in_flight(bool fresh) const;

    // The lines of a ring are on the other processor when they are needed, 0.1 to 0.5 us away. Each of the
    // following asks for some early and waits for nothing; the worst that a bad cursor can do is ask in vain.

    /// The first line that the next write will need.
    void expect_write() const {
        const Jump jump(state_.jump.load(std::memory_order_relaxed));
        const uint64_t head = line_.head.load(std::memory_order_relaxed).harmless();
        __builtin_prefetch(data_ + jump.place(head, capacity_), 1, 3);
    }

    /// Gives the pages of a drained backlog back. The caller holds the sending lock. @return true if it did.
    bool give_back();

private:
    uint64_t room(uint64_t head, uint64_t tail, uint64_t limit, Jump jump) const;
    Jump change(Jump now, uint64_t at, Jump::Kind kind);
    void publish_jump(Jump jump);

    ProducerLine& line_;
    ConsumerLine& peer_;
    ProducerState& state_;
    unsigned char* data_;
    uint64_t capacity_;
};

inline uint64_t RingWriter::in_flight(bool fresh) const {
    const uint64_t head = line_.head.load(std::memory_order_relaxed).harmless();
    if (fresh) {
        // Acquire pairs with the consumer's swap of tail: its reads of the bytes are done before we
        // overwrite them. A wrong value is caught below.
        const uint64_t tail = peer_.tail.load(std::memory_order_acquire).harmless();
        state_.tail.store(tail, std::memory_order_relaxed);  // a cache, read by this side only
    }
    const uint64_t size = head - state_.tail.load(std::memory_order_relaxed);
    return size <= capacity_ ? size : capacity_ + 1;
}

/// The consuming end. A view, like RingWriter.
class RingReader {
public:
    enum Mode { kConsume, kPeek };
    RingReader(Direction& direction, ConsumerState& state, const unsigned char* data, uint64_t capacity)
        : line_(direction.consumer), peer_(direction.producer), state_(state), data_(data),
          capacity_(capacity) {}

    /// Takes up to `size` bytes into `to`; with `to` null they are dropped (MSG_TRUNC). The caller holds
    /// the receiving lock.
    RingResult read(Buffers* to, size_t size, Mode mode);

    /// Bytes waiting (capacity + 1: nonsense). One load each of head and tail; no lock needed.
    uint64_t available() const {
        // Acquire pairs with the producer's swap in RingWriter::write: the bytes are seen with the head.
        // Every difference is harmless here: the result is bounded by the caller or only compared.
        const uint64_t tail = line_.tail.load(std::memory_order_relaxed).harmless();
        const uint64_t head = peer_.head.load(std::memory_order_acquire).harmless();
        const uint64_t size = seen_up_to(tail, head) - tail;
        return size <= capacity_ ? size : capacity_ + 1;
    }
    /// The position after the last byte that can be seen; only to be compared.
    uint64_t seen_head() const {
        // Acquire as above: what is held is known with the head that covers it.
        const uint64_t head = peer_.head.load(std::memory_order_acquire).harmless();
        const uint64_t tail = line_.tail.load(std::memory_order_relaxed).harmless();
        return seen_up_to(tail, head);
    }

    /// See RingWriter::expect_write. The head that the producer writes.
    void expect_head() const { __builtin_prefetch(&peer_, 0, 3); }
    /// The first lines of what waits, or will.
    void expect_read() const {
        const Jump jump(state_.jump.load(std::memory_order_relaxed));
        const uint64_t tail = line_.tail.load(std::memory_order_relaxed).harmless();
        const unsigned char* const first = data_ + jump.place(tail, capacity_);
        __builtin_prefetch(first, 0, 3);
        __builtin_prefetch(first + 64, 0, 3);
    }

private:
    /// @return the head, or the position before it from which on bytes are held back. After the look at the
    /// head, whose acquire orders this one.
    uint64_t seen_up_to(uint64_t tail, uint64_t head) const {
        // Harmless: a position that is not between the two is none.
        const uint64_t held = peer_.held.load(std::memory_order_relaxed).harmless();
        const uint64_t limit = state_.limit.load(std::memory_order_relaxed);
        if ((held | limit) == 0) [[likely]]
            return head;
        if (held != 0 && held - 1 - tail < head - tail)
            head = held - 1;
        return limit != 0 && limit - 1 - tail < head - tail ? limit - 1 : head;
    }

    ConsumerLine& line_;
    ProducerLine& peer_;
    ConsumerState& state_;
    const unsigned char* data_;
    uint64_t capacity_;
};

}  // namespace loopfast
