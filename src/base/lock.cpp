// The slow path of FamilyLock: wait for a holder that is in the middle of a copy, or take over from one
// that was killed there.
#include "base/lock.h"

#include "base/alive.h"

namespace loopfast {

bool FamilyLock::lock_slow(uint32_t me) {
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

}  // namespace loopfast
