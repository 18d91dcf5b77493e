// A thread that waits: in its own futex, or in the epoll set of the reactor that it drives meanwhile.
//
// The order is: prepare(), look at what is waited for (under its lock) and leave one's Waiter where those who
// change it will find it, then sleep. Whoever changes something calls. A call between the look and the sleep
// makes the sleep return at once; calls too many are harmless, everybody looks again.
#pragma once

#include "winsock/lock.h"

namespace loopfast::winsock {

class Reactor;

class Waiter {
public:
    /// Sequentially consistent, as are the calls: the look that follows must not be older.
    void prepare() { word_.store(kAwake, std::memory_order_seq_cst); }
    /// From any thread.
    void call();
    bool called() const { return word_.load(std::memory_order_relaxed) == kCalled; }
    bool is_driving() const { return word_.load(std::memory_order_relaxed) == kDriving; }
    /// Sleeps until called or the deadline, or earlier.
    void sleep(int64_t deadline) {
        int expected = kAwake;
        if (word_.compare_exchange_strong(expected, kAsleep, std::memory_order_seq_cst))
            futex_wait(word_, kAsleep, deadline);
    }
    /// Before and after a sleep in `reactor`'s epoll set. @return false: called, there must be none.
    bool enter(Reactor& reactor) {
        driving_ = &reactor;
        int expected = kAwake;
        return word_.compare_exchange_strong(expected, kDriving, std::memory_order_seq_cst);
    }
    void left() {
        int expected = kDriving;
        word_.compare_exchange_strong(expected, kAwake, std::memory_order_seq_cst);
    }

    // Places in lists of waiters; each is guarded by the list's lock.
    Waiter* next_follower = nullptr;
    Waiter* next_at_port = nullptr;

private:
    static constexpr int kAwake = 0;
    static constexpr int kAsleep = 1;
    static constexpr int kDriving = 2;
    static constexpr int kCalled = 3;
    std::atomic<int> word_{kAwake};
    Reactor* driving_ = nullptr;
};

}  // namespace loopfast::winsock
