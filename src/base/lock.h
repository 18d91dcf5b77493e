// A lock that the forked relatives of one process share, held for the length of a copy and never over a
// sleep. It lives in memory of this side alone, which the peer cannot write.
//
// The word is the owner's thread id, so that
//   - a lock whose owner was killed can be taken over (whoever waits looks whether the owner still lives);
//   - a signal handler that comes back into the library on top of its own thread's copy is recognised
//     instead of waiting for itself: a receive may run then (it commits by one compare-and-swap, and the
//     interrupted one starts again), a send is turned away (see segment/ring.h).
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "base/syscall.h"

namespace loopfast {

/// This thread's id, cached; 0 until asked, and forgotten in a fork's child.
inline thread_local int cached_tid = 0;

inline uint32_t my_tid() {
    if (cached_tid == 0) [[unlikely]]
        cached_tid = sys::gettid();
    return static_cast<uint32_t>(cached_tid);
}

/// Locks this thread holds or is about to take. Tells its own re-entry from a lock whose dead owner had the
/// id that this thread has now.
inline thread_local int held_locks = 0;

class FamilyLock {
public:
    /// Takes the lock. @return false when this thread held it already (we are in a signal handler): then
    /// the section may run, and must not unlock.
    bool lock() {
        const uint32_t me = my_tid();
        uint32_t owner = 0;
        ++held_locks;
        // Acquire pairs with the release in unlock(): what the last owner wrote is seen.
        if (owner_.compare_exchange_strong(owner, me, std::memory_order_acquire)) [[likely]]
            return true;
        if ((owner == me && held_locks > 1) || !lock_slow(me)) {
            --held_locks;
            return false;
        }
        return true;
    }

    void unlock() {
        owner_.store(0, std::memory_order_release);  // pairs with the acquire in lock()
        --held_locks;
    }

    /// For a child of fork: the owner may have been a thread that does not exist here. Only for locks in
    /// private memory.
    void reset() { owner_.store(0, std::memory_order_relaxed); }

private:
    [[gnu::noinline]] bool lock_slow(uint32_t me);
    std::atomic<uint32_t> owner_{0};
};

/// Scope of a FamilyLock.
class Hold {
public:
    explicit Hold(FamilyLock& lock) : lock_(lock), taken_(lock.lock()) {}
    ~Hold() {
        if (taken_)
            lock_.unlock();
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

private:
    FamilyLock& lock_;
    bool taken_;
};

}  // namespace loopfast
