// A lock that the forked relatives of one process share, held for the length of a copy and never over a
// sleep. It lives in memory of this side alone, which the peer cannot write.
//
// The word is the owner's thread id, so that
//   - a lock whose owner was killed can be taken over (whoever waits looks whether the owner still lives);
//   - a signal handler that comes back into the library on top of its own thread's copy is recognised
//     instead of waiting for itself: a receive may run then (it commits by one compare-and-swap, and the
//     interrupted one starts again), a send is turned away (see segment/ring.h);
//   - two threads whose handlers each want what the other one's section has do not wait for ever: who waits
//   on
//     top of a section says so in that section's lock, and who finds that said of the lock he waits for, on
//     top of a section of his own, gives up where he can (EINTR);
//   - a section that such a handler jumped out of (siglongjmp) is recognised too: nothing in it has been
//     committed, and its lock is let go of, at the jump (posix/jumps.cpp) or at this thread's next lock.
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

class FamilyLock;

/// Where on its stack this thread took a lock.
struct HeldLock {
    FamilyLock* lock;
    uintptr_t at;
};
constexpr int kMostHeld = 16;  // a power of two; some three are held at a time, as many again in a handler
inline thread_local HeldLock held_sections[kMostHeld];

inline uintptr_t stack_pointer() {
    uintptr_t value;
#if defined(__x86_64__)
    asm volatile("mov %%rsp, %0" : "=r"(value));
#else
    asm volatile("mov %0, sp" : "=r"(value));
#endif
    return value;
}

/// This thread jumps to a frame whose stack pointer is `target`: sections below it are left for good, and
/// their locks let go of.
void leave_sections_below(uintptr_t target);

class FamilyLock {
public:
    enum class Taken {
        kYes,
        kOwn,  ///< this thread has it already: we are in a signal handler on top of the section
        kBusy
    };

    /// Takes the lock. @return false when this thread held it already: then the section may run, and must not
    /// unlock.
    bool lock() { return take(false) == Taken::kYes; }

    /// The same for what can say that it was interrupted. In a handler on top of some section of this thread
    /// it is kBusy when who has the lock waits as well, in a handler on top of that: it may be for the lock
    /// that this thread has.
    Taken take() { return take(true); }

    /// Takes it only if it is free, or its owner is dead.
    Taken try_lock();

    /// The section that took it is over, though it has not come to its end.
    void abandon() {
        uint32_t owner = owner_.load(std::memory_order_relaxed);
        if (thread_of(owner) == my_tid())
            owner_.compare_exchange_strong(owner, 0, std::memory_order_release);
    }

    void unlock() {
        owner_.store(0, std::memory_order_release);  // pairs with the acquire in lock()
        --held_locks;
    }

    /// For a child of fork: the owner may have been a thread that does not exist here. Only for locks in
    /// private memory.
    void reset() { owner_.store(0, std::memory_order_relaxed); }

private:
    /// In the word beside the owner's id, which has 22 bits: it waits for another lock, in a handler on top
    /// of the section.
    static constexpr uint32_t kOwnerWaits = 1U << 31;
    static uint32_t thread_of(uint32_t owner) { return owner & ~kOwnerWaits; }

    Taken take(bool may_give_up) {
        const uint32_t me = my_tid();
        uint32_t owner = 0;
        held_sections[held_locks & (kMostHeld - 1)] = {this, stack_pointer()};
        ++held_locks;
        // Acquire pairs with the release in unlock(): what the last owner wrote is seen.
        if (owner_.compare_exchange_strong(owner, me, std::memory_order_acquire)) [[likely]]
            return Taken::kYes;
        const Taken taken = take_slow(me, may_give_up);
        if (taken != Taken::kYes)
            --held_locks;
        return taken;
    }
    [[gnu::noinline]] Taken take_slow(uint32_t me, bool may_give_up);
    Taken wait(uint32_t me, bool may_give_up);
    static bool mark_sections(uint32_t me, bool waiting);
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

/// Scope of a section that is left out when its lock cannot be had, see take().
class HoldIfFree {
public:
    explicit HoldIfFree(FamilyLock& lock) : lock_(lock), taken_(lock.take()) {}
    ~HoldIfFree() {
        if (taken_ == FamilyLock::Taken::kYes)
            lock_.unlock();
    }
    HoldIfFree(const HoldIfFree&) = delete;
    HoldIfFree& operator=(const HoldIfFree&) = delete;
    /// False: the section may not run.
    bool held() const { return taken_ != FamilyLock::Taken::kBusy; }

private:
    FamilyLock& lock_;
    FamilyLock::Taken taken_;
};

/// Scope of two. A handler on top of a section of one of them may wait for the other; so who holds the first
/// never waits for the second without letting go in between, and who is on top of some section does not wait
/// for ever.
class HoldBoth {
public:
    HoldBoth(FamilyLock& first, FamilyLock& second);
    ~HoldBoth();
    HoldBoth(const HoldBoth&) = delete;
    HoldBoth& operator=(const HoldBoth&) = delete;
    /// False: the section may not run.
    bool held() const { return held_; }

private:
    FamilyLock& first_;
    FamilyLock& second_;
    bool first_taken_ = false;
    bool second_taken_ = false;
    bool held_ = true;
};

}  // namespace loopfast
