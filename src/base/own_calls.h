// How many calls this thread has made that went to the kernel and may have made some descriptor ready: what
// it did itself it may count on hearing of at once, see EpollSet::look_is_due().
#pragma once

#include <atomic>
#include <cstdint>

namespace loopfast {

/// Wraps; only compared for "has changed".
inline thread_local uint32_t own_calls = 0;

inline void note_own_call() { ++own_calls; }

/// How many of them said something to the other end of a TCP connection over the kernel lane: connected,
/// sent, ended. What this thread sends over a ring afterwards comes after it, see stream/order.h.
inline thread_local uint32_t kernel_lane_calls = 0;
inline void note_kernel_lane_call() { ++kernel_lane_calls; }

/// A pipe, a socket or a terminal is written to by stdio, inside libc, where no call is seen.
inline std::atomic<bool> unseen_writes{false};

}  // namespace loopfast
