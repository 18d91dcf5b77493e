// What the two ends of a fused connection share: one control page, then the data of the two rings.
//
//     0        header: magic, version, sizes; written by the acceptor before it sends the descriptor
//     64       one word of state per side
//     128      direction 0 (connector to acceptor): a line written by its producer, one by its consumer,
//              one for the two sleepers
//     320      direction 1 (acceptor to connector): the same
//     4096     data of direction 0, `capacity` bytes, sparse
//     4096+c   data of direction 1
//
// Positions in a ring count bytes from the first one that was sent through it, and never wrap (2^61 bytes
// last for centuries). Everything here may be overwritten by a hostile peer at any moment: each word is
// Untrusted, and the worst a bad value can do is to end this one connection.
#pragma once

#include <cstddef>
#include <cstdint>

#include "segment/untrusted.h"

namespace loopfast {

constexpr uint64_t kSegmentMagic = 0x3174736166706f6f;  // "oopfast1"
/// Of this layout and of what its words mean. Tests build a library with another one.
#ifndef LOOPFAST_SEGMENT_VERSION
#define LOOPFAST_SEGMENT_VERSION 2
#endif
constexpr uint32_t kSegmentVersion = LOOPFAST_SEGMENT_VERSION;
constexpr size_t kControlSize = 4096;

/// The small window, in which a ring lives while its reader keeps up: it stays in the cache.
constexpr uint64_t kSmallWindow = 256 * 1024;
/// The data of one direction, in bytes: what the kernel's default buffers would hold; a power of two.
constexpr uint64_t kDefaultCapacity = 4 * 1024 * 1024;
constexpr uint64_t kLargestCapacity = 256 * 1024 * 1024;

/// Nobody sleeps.
constexpr uint64_t kAwake = 0;
/// Somebody sleeps, and each publication rings: never taken for a sleep that was rung before.
constexpr uint64_t kAlwaysRing = ~uint64_t{0};
/// SideWords::closing: it sends no more; or it neither sends nor receives.
constexpr uint32_t kClosingWrite = 1;
constexpr uint32_t kClosingBoth = 2;
/// ProducerLine::turned_away.
constexpr uint64_t kBothThere = 0;
constexpr uint64_t kConsumerLeft = 1;
constexpr uint64_t kProducerDone = 2;
/// After kConsumerLeft, by compare-and-swap as well: the producer has begun to take back what is unread, or,
/// since it did not, the consumer keeps what it saw.
constexpr uint64_t kTakingBack = 3;
/// The word's low bits say that the consumer keeps what lies before a position, which the others are.
constexpr uint64_t kKeptMark = 4;
constexpr unsigned kKeptShift = 3;
constexpr uint64_t kept_until(uint64_t position) { return position << kKeptShift | kKeptMark; }
constexpr bool is_kept(uint64_t word) { return (word & ((1U << kKeptShift) - 1)) == kKeptMark; }
/// No cut was published yet.
constexpr uint64_t kNoCut = 0;

struct alignas(64) ProducerLine {
    Untrusted<uint64_t> head;     ///< position after the last byte published
    Untrusted<uint64_t> jump[2];  ///< the last two jump records, see ring.h
    /// The stream offset at which this direction left the kernel lane, plus one; kNoCut before that.
    /// Stored before the first byte is published.
    Untrusted<uint64_t> cut;
    /// Which side turned away from this direction first: kBothThere, kConsumerLeft or kProducerDone, by
    /// compare-and-swap; and what became of kConsumerLeft. See stream/leave.cpp.
    Untrusted<uint64_t> turned_away;
    /// Where bytes begin that are not to be seen yet (MSG_MORE, TCP_CORK), plus one; 0 where none are. It
    /// counts while it lies between the consumer's tail and the head. See stream/held.cpp.
    Untrusted<uint64_t> held;
    /// Changes before a head that comes after something which the sending thread has said over the kernel
    /// lane since it last sent here. See stream/order.h.
    Untrusted<uint64_t> order;
};

struct alignas(64) ConsumerLine {
    Untrusted<uint64_t> tail;     ///< position after the last byte consumed
    Untrusted<uint64_t> drained;  ///< names the last backlog that was read: its pages can be given back
};

/// A sleep's token, or kAwake, or kAlwaysRing. Written by the sleeper, taken away by whoever wakes it.
struct alignas(64) SleepLine {
    Untrusted<uint64_t> consumer;  ///< the consumer sleeps until there is data
    Untrusted<uint64_t> producer;  ///< the producer sleeps until there is room
};

struct Direction {
    ProducerLine producer;
    ConsumerLine consumer;
    SleepLine sleep;
};

struct alignas(64) SegmentHeader {
    uint64_t magic;
    uint32_t version;
    uint32_t header_size;
    uint64_t capacity;  ///< of each direction
};

/// What one side says of itself; hints only, each believed after the kernel connection agrees.
struct alignas(32) SideWords {
    Untrusted<uint32_t> confirmed;  ///< this side maps the segment and will use it
    Untrusted<uint32_t>
        closing;              ///< kClosing...: this side closed or shut down: look at the kernel connection
    Untrusted<uint32_t> cpu;  ///< processor on which this side last ran, plus one
    /// What this side's SO_RCVBUF adds to what the peer may have in flight. Here and not beside its tail, so
    /// that a send that needs the limit does not wait for the line that the receiver writes all the time.
    Untrusted<uint64_t> receive_size;
};

struct Segment {
    SegmentHeader header;
    SideWords side[2];  ///< 0: connector, 1: acceptor
    Direction direction[2];
};
static_assert(sizeof(Segment) <= kControlSize);
static_assert(offsetof(Segment, direction) == 128);
static_assert(sizeof(Direction) == 192);

constexpr size_t segment_size(uint64_t capacity) { return kControlSize + 2 * capacity; }

}  // namespace loopfast
