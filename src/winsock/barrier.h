// A full fence of which only one side pays. The two halves of "I store, then look at your word; you store,
// then look at mine" need a fence each. Where one half is on every send and receive and the other is rare,
// the rare one has the kernel fence all threads of the process (membarrier), and the other only keeps the
// compiler from moving its look before its store.
//
// Where the kernel does not offer that, both halves are ordinary fences.
#pragma once

#include <atomic>

namespace loopfast::winsock {

/// Set once, before the program runs; taken back if the system forbids the call later.
extern std::atomic<bool> one_sided_fences;

/// The side that is on every call.
inline void light_fence() {
    if (one_sided_fences.load(std::memory_order_relaxed)) [[likely]]
        std::atomic_signal_fence(std::memory_order_seq_cst);
    else
        std::atomic_thread_fence(std::memory_order_seq_cst);
}
/// The rare side: a system call.
void heavy_fence();

}  // namespace loopfast::winsock
