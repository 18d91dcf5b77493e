// A mutex, and the two futex calls under it. Held for the bookkeeping of one operation at most, never over a
// wait; a non-blocking send or receive is the longest thing done under one. Taking it is one atomic
// operation, giving it back is a store: who has to sleep for it pays for the fence (barrier.h).
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <ctime>

#include "winsock/barrier.h"

namespace loopfast::winsock {

constexpr int64_t kNever = INT64_MAX;  ///< a deadline or timeout that never comes, in nanoseconds

inline int64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}
/// From a timeout in milliseconds, `infinite` for none, to a deadline.
inline int64_t deadline_of(uint32_t milliseconds) {
    return milliseconds == UINT32_MAX ? kNever : now() + milliseconds * 1'000'000LL;
}
inline int64_t left_until(int64_t deadline) {
    if (deadline == kNever)
        return kNever;
    const int64_t left = deadline - now();
    return left > 0 ? left : 0;
}

/// Sleeps while `word` is `value`, until `deadline`. May return early.
inline void futex_wait(std::atomic<int>& word, int value, int64_t deadline = kNever) {
    timespec time{static_cast<time_t>(deadline / 1'000'000'000), static_cast<long>(deadline % 1'000'000'000)};
    syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline == kNever ? nullptr : &time, nullptr,
            FUTEX_BITSET_MATCH_ANY);
}
inline void futex_wake(std::atomic<int>& word, int count = 1) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

class Lock {
public:
    void lock() {
        if (!try_lock()) [[unlikely]]
            lock_slowly();
    }
    bool try_lock() {
        int expected = 0;
        // Acquire pairs with the release in unlock().
        return word_.compare_exchange_strong(expected, 1, std::memory_order_acquire,
                                             std::memory_order_relaxed);
    }
    /// The owner must keep what the lock is part of: it is looked at once more after it was given back.
    void unlock() {
        word_.store(0, std::memory_order_release);
        // Pairs with the heavy fence in lock_slowly(): we see the sleeper, or it sees the lock free.
        light_fence();
        if (sleepers_.load(std::memory_order_relaxed) != 0) [[unlikely]]
            futex_wake(word_);
    }

private:
    __attribute__((noinline)) void lock_slowly() {
        for (int i = 0; i < 100; ++i) {
            if (word_.load(std::memory_order_relaxed) == 0 && try_lock())
                return;
            __builtin_ia32_pause();
        }
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        heavy_fence();
        while (!try_lock())
            futex_wait(word_, 1);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
    std::atomic<int> word_{0};
    std::atomic<int> sleepers_{0};
};

class Hold {
public:
    explicit Hold(Lock& lock) : lock_(lock) { lock_.lock(); }
    ~Hold() { lock_.unlock(); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

private:
    Lock& lock_;
};

}  // namespace loopfast::winsock
