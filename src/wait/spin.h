// Spinning before a sleep: worth it exactly when the wait ends within the time that a sleep and a wake-up
// would cost.
//
// Two ends that both sleep make each other's waits long: each is woken across processors, which takes 5 us
// on bare metal and 50 us and more on a virtual machine, while the answer itself takes one. So the length of
// past sleeps alone does not tell whether spinning would have paid. Three rules find out together:
//   - spins that succeed go on; after a few in vain there is none, so an idle process never spins;
//   - every few sleeps one trial, long enough to outlast the peer's wake-up, if the sleeps are that short;
//   - who finds the peer awake when it publishes spins too: the peer may be in its trial. Then both spin,
//     and the waits are short from there on.
#pragma once

#include "base/clock.h"
#include "base/cpu.h"
#include "policy/policy.h"
#include "stream/sleep.h"
#include "stream/stream.h"

namespace loopfast {

constexpr uint8_t kSpinsInVain = 3;
constexpr uint8_t kHunchesInVain = 8;
constexpr uint8_t kLeastPatience = 3;  // 8 sleeps
constexpr uint8_t kMostPatience = 6;   // 64 sleeps: a trial costs 2 in 100 of the time at most
constexpr int64_t kLongestTrial = 250'000;

/// How long to spin before this sleep, in nanoseconds; 0: not at all.
inline int64_t spin_time(SpinHistory& history) {
    const int64_t budget = spin_budget();
    if (budget <= 0)
        return 0;
    if (history.failures.load(std::memory_order_relaxed) < kSpinsInVain)
        return budget;
    if (peer_was_awake && history.hunches.load(std::memory_order_relaxed) < kHunchesInVain) {
        history.hunches.fetch_add(1, std::memory_order_relaxed);
        return budget;
    }
    const uint8_t patience = history.patience.load(std::memory_order_relaxed);
    const int64_t last = history.last_sleep.load(std::memory_order_relaxed);
    if (history.sleeps.load(std::memory_order_relaxed) < 1U << patience || last == 0 || last > kLongestTrial)
        return 0;
    history.sleeps.store(0, std::memory_order_relaxed);
    history.hunches.store(kHunchesInVain / 2, std::memory_order_relaxed);
    if (patience < kMostPatience)
        history.patience.store(patience + 1, std::memory_order_relaxed);
    return last + last / 2 > budget ? last + last / 2 : budget;
}
inline void spin_succeeded(SpinHistory& history) {
    if (history.failures.load(std::memory_order_relaxed) == 0)
        return;
    history.failures.store(0, std::memory_order_relaxed);
    history.hunches.store(0, std::memory_order_relaxed);
    history.patience.store(kLeastPatience, std::memory_order_relaxed);
}
inline void spin_failed(SpinHistory& history) {
    const uint8_t failures = history.failures.load(std::memory_order_relaxed);
    if (failures < kSpinsInVain)
        history.failures.store(failures + 1, std::memory_order_relaxed);
}
/// A sleep of this length ended with what it waited for.
inline void slept(SpinHistory& history, int64_t nanoseconds) {
    const uint8_t sleeps = history.sleeps.load(std::memory_order_relaxed);
    if (sleeps < UINT8_MAX)
        history.sleeps.store(sleeps + 1, std::memory_order_relaxed);
    history.last_sleep.store(nanoseconds < kLongestTrial ? static_cast<uint32_t>(nanoseconds)
                                                         : static_cast<uint32_t>(kLongestTrial) + 1,
                             std::memory_order_relaxed);
    if (nanoseconds < spin_budget())
        spin_succeeded(history);
}

/// The peer last ran on this very processor: it cannot run while we spin.
inline bool peer_on_this_cpu(const Stream& stream) {
    // A hint; any value is harmless.
    const uint32_t theirs =
        stream.segment.segment->side[1 - stream.side()].cpu.load(std::memory_order_relaxed).harmless();
    return theirs == static_cast<uint32_t>(current_cpu()) + 1;
}

/// What one look in a spin says. A plain bool is as good: ready or not.
enum class SpinStep { kGoOn, kReady, kGiveUp };
constexpr SpinStep spin_step(bool ready) { return ready ? SpinStep::kReady : SpinStep::kGoOn; }
constexpr SpinStep spin_step(SpinStep step) { return step; }

/// How many looks at `count` streams are made before the time is looked at again.
constexpr int kLooksPerTime = 32;
constexpr int looks_per_time(uint64_t count) {
    return count >= 8 * kLooksPerTime ? 1 : kLooksPerTime / (1 + static_cast<int>(count) / 8);
}

/// Spins until `ready` or the time given or the deadline is over. @return whether it became ready.
template <typename Ready>
bool spin_until(SpinHistory& history, int64_t deadline, int64_t budget, Ready ready,
                int looks = kLooksPerTime) {
    const int64_t start = now_ns();
    const int64_t end = deadline - start < budget ? deadline : start + budget;
    do {
        for (int i = 0; i < looks; ++i) {
            const SpinStep step = spin_step(ready());
            if (step == SpinStep::kReady) {
                spin_succeeded(history);
                return true;
            }
            if (step == SpinStep::kGiveUp) {
                spin_failed(history);
                return false;
            }
            pause_cpu();
        }
    } while (now_ns() < end);
    spin_failed(history);
    return false;
}

}  // namespace loopfast
