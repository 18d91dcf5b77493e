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

/// Says of this thread's sections, but for the one that it is about to take, that a handler on top of them
/// waits.
/// @return whether that was said before.
bool FamilyLock::mark_sections(uint32_t me, bool waiting) {
    const uint32_t before = waiting ? me : me | kOwnerWaits;
    const uint32_t after = waiting ? me | kOwnerWaits : me;
    bool was = false;
    for (int i = 0; i < held_locks - 1 && i < kMostHeld; ++i) {
        uint32_t owner = before;
        // Relaxed: who reads it looks again and again.
        was = (!held_sections[i].lock->owner_.compare_exchange_strong(owner, after,
                                                                      std::memory_order_relaxed) &&
               owner == after) ||
              was;
    }
    return was;
}

FamilyLock::Taken FamilyLock::take_slow(uint32_t me, bool may_give_up) {
    if (thread_of(owner_.load(std::memory_order_relaxed)) == me && held_locks > 1) {
        // Are we on top of our own section? Then it stands above us on the stack. One at our very place or
        // below is over: its thread jumped out of it and came here again. (That is the second net: one that
        // came back by way of more frames than before is not caught here, but at the jump.)
        leave_sections(1, stack_pointer() + 1);
        if (thread_of(owner_.load(std::memory_order_relaxed)) == me)
            return Taken::kOwn;
    }
    return wait(me, may_give_up);
}

FamilyLock::Taken FamilyLock::wait(uint32_t me, bool may_give_up) {
    constexpr unsigned kSpins = 200;
    /// What somebody else waits for comes mostly: a moment for that. Of two who wait for each other one has
    /// more patience, so that only one gives up. Who has given up on top of the same section before has none,
    /// or signals that come often enough would never let the section go on.
    constexpr int kPatience = 50;
    const bool on_top = held_locks > 1;
    bool marked = false;
    bool again = false;
    int knots = 0;
    Taken result;
    for (unsigned round = 1;; ++round) {
        uint32_t owner = 0;
        if (owner_.compare_exchange_strong(owner, me, std::memory_order_acquire)) {
            result = Taken::kYes;
            break;
        }
        if (thread_of(owner) == me) {
            // Our id, but not our doing: a dead relative had it before us.
            if (!on_top)
                owner_.store(me, std::memory_order_relaxed);
            result = on_top ? Taken::kOwn : Taken::kYes;
            break;
        }
        if (round < kSpins) {
            pause_cpu();
            continue;
        }
        if (on_top && !marked) {
            again = mark_sections(me, true);
            marked = true;
        } else if (on_top && round % 16 == 0) {
            mark_sections(me, true);  // as a handler on top of this one takes it away
        }
        knots = (owner & kOwnerWaits) != 0 ? knots + 1 : 0;
        if (on_top && may_give_up && knots > 0 &&
            (again || knots > (me < thread_of(owner) ? kPatience : 4 * kPatience)))
            return Taken::kBusy;  // what is said of our sections stays, until they are over
        // A copy takes microseconds; a holder that is not running may take a time slice. Signals sent to a
        // thread id reach it whatever its process, so asking for it says whether it still exists.
        if (round % 64 == 0 && is_gone(static_cast<int>(thread_of(owner))) &&
            owner_.compare_exchange_strong(owner, me, std::memory_order_acquire)) {
            result = Taken::kYes;
            break;
        }
        sys::sleep_ns(20'000);
    }
    if (marked)
        mark_sections(me, false);
    return result;
}

FamilyLock::Taken FamilyLock::try_lock() {
    const uint32_t me = my_tid();
    held_sections[held_locks & (kMostHeld - 1)] = {this, stack_pointer()};
    ++held_locks;
    uint32_t owner = 0;
    // Acquire, both: pairs with the release in unlock().
    if (owner_.compare_exchange_strong(owner, me, std::memory_order_acquire))
        return Taken::kYes;
    if (thread_of(owner) != me && is_gone(static_cast<int>(thread_of(owner))) &&
        owner_.compare_exchange_strong(owner, me, std::memory_order_acquire))
        return Taken::kYes;
    --held_locks;
    return thread_of(owner) == me ? Taken::kOwn : Taken::kBusy;
}

HoldBoth::HoldBoth(FamilyLock& first, FamilyLock& second) : first_(first), second_(second) {
    constexpr int kRounds = 20;
    /// On top of a section of this thread: about a second. Nobody who has one of the two works that long on
    /// it.
    constexpr int kMostAttempts = 10'000;
    const bool on_top = held_locks != 0;
    for (int attempt = 0; !on_top || attempt < kMostAttempts; ++attempt) {
        const FamilyLock::Taken outcome = first_.take();
        if (outcome == FamilyLock::Taken::kBusy)
            break;
        first_taken_ = outcome == FamilyLock::Taken::kYes;
        for (int round = 0; round < kRounds; ++round) {
            const FamilyLock::Taken taken = second_.try_lock();
            second_taken_ = taken == FamilyLock::Taken::kYes;
            if (taken != FamilyLock::Taken::kBusy)
                return;
            pause_cpu();
        }
        if (first_taken_)
            first_.unlock();
        first_taken_ = false;
        sys::sleep_ns(20'000);
    }
    held_ = false;
}

HoldBoth::~HoldBoth() {
    if (second_taken_)
        second_.unlock();
    if (first_taken_)
        first_.unlock();
}

}  // namespace loopfast
