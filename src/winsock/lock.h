// A mutex of one word, and the two futex calls under it. Held for the bookkeeping of one operation at most,
// never over a wait; a non-blocking send or receive is the longest thing done under one.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <ctime>

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
        int expected = 0;
        // Acquire pairs with the release in unlock().
        if (!word_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) [[unlikely]]
            lock_slowly();
    }
    void unlock() {
        if (word_.exchange(0, std::memory_order_release) == 2) [[unlikely]]
            futex_wake(word_);
    }

private:
    __attribute__((noinline)) void lock_slowly() {
        for (int i = 0; i < 100; ++i) {
            int expected = 0;
            if (word_.load(std::memory_order_relaxed) == 0 &&
                word_.compare_exchange_strong(expected, 1, std::memory_order_acquire))
                return;
            __builtin_ia32_pause();
        }
        while (word_.exchange(2, std::memory_order_acquire) != 0)
            futex_wait(word_, 2);
    }
    std::atomic<int> word_{0};  ///< 0 free, 1 held, 2 held and waited for
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
