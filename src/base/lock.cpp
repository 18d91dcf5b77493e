// The slow path of FamilyLock: wait for a holder that is in the middle of a copy, or take over from one
// that was killed there.
#include "base/lock.h"

#include <signal.h>

#include "base/alive.h"

namespace loopfast {

namespace {

struct AlternateStack {
    uintptr_t begin = 0;
    uintptr_t end = 0;  ///< both 0: this thread is not on it
    bool has(uintptr_t at) const { return at >= begin && at < end; }
};

AlternateStack alternate_stack() {
    stack_t now{};
    if (sys::call(SYS_sigaltstack, 0, sys::word(&now)) != 0 || (now.ss_flags & SS_ONSTACK) == 0)
        return {};
    const auto begin = reinterpret_cast<uintptr_t>(now.ss_sp);
    return {begin, begin + now.ss_size};
}

/// Whether the section whose lock was taken at `at` is over once this thread goes on at `here`. The stack
/// grows downwards: what lies below is gone. Who jumps off the signal stack leaves all that is there; who is
/// on it has his interrupted sections on the other one.
bool is_left(uintptr_t at, uintptr_t here, const AlternateStack& stack) {
    return stack.has(at) == stack.has(here) ? at < here : stack.has(at);
}

void leave_sections(int keep, uintptr_t here) {
    const AlternateStack stack = alternate_stack();
    while (held_locks > keep &&
           is_left(held_sections[(held_locks - 1 - keep) & (kMostHeld - 1)].at, here, stack)) {
        HeldLock& top = held_sections[(held_locks - 1 - keep) & (kMostHeld - 1)];
        top.lock->abandon();
        if (keep != 0)
            top = held_sections[(held_locks - 1) & (kMostHeld - 1)];
        --held_locks;
    }
}

}  // namespace

void leave_sections_below(uintptr_t target) { leave_sections(0, target); }

bool FamilyLock::lock_slow(uint32_t me) {
    if (owner_.load(std::memory_order_relaxed) == me && held_locks > 1) {
        // Are we on top of our own section? Then it stands above us on the stack. One at our very place or
        // below is over: its thread jumped out of it and came here again. (That is the second net: one that
        // came back by way of more frames than before is not caught here, but at the jump.)
        leave_sections(1, stack_pointer() + 1);
        if (owner_.load(std::memory_order_relaxed) == me)
            return false;
    }
    for (unsigned round = 1;; ++round) {
        uint32_t owner = 0;
        if (owner_.compare_exchange_strong(owner, me, std::memory_order_acquire))
            return true;
        if (owner == me)
            return held_locks == 1;  // our id, but not our doing: a dead relative had it before us
        if (round < 200) {
            pause_cpu();
            continue;
        }
        // A copy takes microseconds; a holder that is not running may take a time slice. Signals sent to a
        // thread id reach it whatever its process, so asking for it says whether it still exists.
        if (round % 64 == 0 && is_gone(static_cast<int>(owner))) {
            if (owner_.compare_exchange_strong(owner, me, std::memory_order_acquire))
                return true;
        }
        sys::sleep_ns(20'000);
    }
}

FamilyLock::Taken FamilyLock::try_lock() {
    const uint32_t me = my_tid();
    held_sections[held_locks & (kMostHeld - 1)] = {this, stack_pointer()};
    ++held_locks;
    uint32_t owner = 0;
    // Acquire, both: pairs with the release in unlock().
    if (owner_.compare_exchange_strong(owner, me, std::memory_order_acquire))
        return Taken::kYes;
    if (owner != me && is_gone(static_cast<int>(owner)) &&
        owner_.compare_exchange_strong(owner, me, std::memory_order_acquire))
        return Taken::kYes;
    --held_locks;
    return owner == me ? Taken::kOwn : Taken::kBusy;
}

HoldBoth::HoldBoth(FamilyLock& first, FamilyLock& second) : first_(first), second_(second) {
    constexpr int kRounds = 20;
    for (;;) {
        first_taken_ = first_.lock();
        for (int round = 0; round < kRounds; ++round) {
            const FamilyLock::Taken taken = second_.try_lock();
            second_taken_ = taken == FamilyLock::Taken::kYes;
            if (taken != FamilyLock::Taken::kBusy)
                return;
            pause_cpu();
        }
        if (first_taken_)
            first_.unlock();
        sys::sleep_ns(20'000);
    }
}

HoldBoth::~HoldBoth() {
    if (second_taken_)
        second_.unlock();
    if (first_taken_)
        first_.unlock();
}

}  // namespace loopfast
