// The half of a stream that its forked relatives share: it lies in the family's arena (table/arena.h), in
// memory that the peer cannot write. Pointers and descriptors do not belong here, each process has its
// own: a relative that lost its privileges must not be able to redirect the others' writes.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/lock.h"
#include "link/address.h"
#include "segment/ring.h"

namespace loopfast {

/// Where a socket stands on its way to the ring.
enum class State : uint32_t {
    kFree = 0,
    kIdle,       ///< marked, or listening; not connected
    kCandidate,  ///< connected, kernel lane, may be fused
    kOffered,    ///< connector: its offer can be found
    kPending,    ///< a thread is deciding; everybody else waits for the moment that takes
    kProposed,   ///< acceptor: the segment was sent, the connector has not confirmed
    kFused,      ///< both ends map the segment; each direction moves over at its own cut
    kKernel,     ///< for good, with a reason
};

enum class Lane : uint32_t {
    kKernel = 0,
    kRing = 1,
    kKernelAgain = 2,  ///< of our direction: done with the ring, before the stream as a whole could leave it
};

constexpr int kMostHolders = 6;

/// Counters for `loopfast status`; written with relaxed order by whoever does the work, read by anybody.
/// Those of messages are counted under the direction's lock while it is on the ring, without an atomic
/// addition; before that, and where a handler got in between, one may be missed.
struct Counters {
    std::atomic<uint64_t> messages_out;
    std::atomic<uint64_t> messages_in;
    std::atomic<uint64_t> bells;
    std::atomic<uint64_t> sleeps;
};

inline void count_one(std::atomic<uint64_t>& counter) {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

struct alignas(64) SharedHalf {
    // --- what a send touches ---
    FamilyLock send_lock;
    std::atomic<Lane> out_lane;
    std::atomic<uint32_t> send_to_kernel;  ///< shut down, or the peer is gone: errors are the kernel's
    std::atomic<uint32_t> full_count;      ///< how often a send or poll found too little room, on either lane
    std::atomic<uint32_t> corked;          ///< TCP_CORK
    std::atomic<uint64_t> kernel_out;      ///< bytes sent over the kernel lane
    std::atomic<uint64_t> send_size;       ///< what SO_SNDBUF adds to the limit; 0: never set
    ProducerState producer;

    // --- what a receive touches ---
    alignas(64) FamilyLock receive_lock;
    std::atomic<Lane> in_lane;
    std::atomic<uint32_t> low_water;  ///< SO_RCVLOWAT
    std::atomic<uint64_t> kernel_in;  ///< bytes received over the kernel lane
    ConsumerState consumer;

    // --- the rest ---
    alignas(64) std::atomic<uint32_t> generation;  ///< counts the connections that this slot has held
    std::atomic<State> state;
    std::atomic<uint32_t> reason;            ///< enum Reason
    std::atomic<uint32_t> setup_owner;       ///< thread that is in fuse.cpp for this stream, or 0
    std::atomic<uint32_t> nonblocking;       ///< O_NONBLOCK of the open description
    std::atomic<uint32_t> tells_rest;        ///< TCP_INQ: a recvmsg says how much is left
    std::atomic<uint32_t> opted_in;          ///< marked through the control code
    std::atomic<uint32_t> opted_out;         ///< marked off, under a process-wide opt-in
    std::atomic<uint32_t> peer_left;         ///< see leave.cpp
    std::atomic<uint32_t> shut_for_reading;  ///< shutdown(SHUT_RD), also as a part of SHUT_RDWR
    std::atomic<uint32_t> ends_later;        ///< shut down for writing, but the kernel does not know it yet
    std::atomic<int> sign;                   ///< ours is given: what the switches were before, see proof.cpp
    std::atomic<uint32_t> broken;            ///< the peer wrote nonsense into the segment
    std::atomic<uint64_t> receive_size;      ///< what SO_RCVBUF adds to the peer's limit; 0: never set
    std::atomic<int64_t> receive_timeout;    ///< SO_RCVTIMEO, nanoseconds; kForever for none
    std::atomic<int64_t> send_timeout;       ///< SO_SNDTIMEO
    std::atomic<uint32_t> user_timeout;      ///< TCP_USER_TIMEOUT, milliseconds; 0 for none
    std::atomic<int> holders[kMostHolders];  ///< process ids of the relatives that hold the descriptor
    FamilyLock link_lock;                    ///< for draining the link, which relatives share
    std::atomic<uint32_t> armings;           ///< since the link was drained, see wait/sleeper.cpp
    std::atomic<uint32_t> had_relatives;     ///< the process forked while it held the descriptor
    std::atomic<uint32_t> more_holders;      ///< those that did not fit above: never forgotten
    std::atomic<uint32_t> role;              ///< enum Role
    std::atomic<uint32_t> objection;         ///< what forbade the fast path: a number for objection_text()
    // What the ring had carried when its bytes were given back to the kernel, plus one; 0 where none were.
    std::atomic<uint64_t> carried_out;
    std::atomic<uint64_t> carried_in;
    std::atomic<uint32_t> begun_anew;  ///< connect(2) to nowhere: what the ring carried counts no more
    Endpoint local;
    Endpoint remote;
    Counters counters;
};

}  // namespace loopfast
