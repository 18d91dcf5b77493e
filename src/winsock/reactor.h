// A reactor: the epoll set that tells when sockets with something pending can go on. One per completion port,
// and one for all sockets without a port.
//
// There is no thread behind it. The threads that wait for its sockets drive it: one has the role, sleeps in
// epoll_wait (or spins there, as libloopfast does) and performs what has become possible, for itself and for
// others; the others sleep in their futexes and take the role over when it is left. Where something is
// pending and no thread waits, the engine drives (engine.h).
//
// Registration is edge-triggered and stays: an operation is always tried first, so no edge is ever missed
// that matters, and no system call is made for each operation.
#pragma once

#include "winsock/waiter.h"

namespace loopfast::winsock {

class Port;

class Reactor {
public:
    explicit Reactor(Port* port) : port_(port) {}
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;
    /// Makes the epoll set. @return false: no descriptors left.
    bool start();
    void stop();

    // The role.
    bool try_take();
    /// By who has the role: waits for events up to `timeout` nanoseconds, unless `waiter` is called before or
    /// meanwhile, and performs them.
    void drive(Waiter* waiter, int64_t timeout);
    /// Gives the role up; somebody who waits takes over, or the engine is told.
    void leave();
    /// Only gives it up, for those who see to the rest themselves.
    void drop_role() { role_.store(0, std::memory_order_seq_cst); }
    bool driven() const { return role_.load(std::memory_order_seq_cst) != 0; }
    /// @return whether a thread without a port's packet in mind was called to take the role.
    bool call_follower();

    /// One step of a wait: drives, or sleeps while another thread does. Returns when called, when something
    /// was performed, or at the deadline; the caller looks again.
    void wait(Waiter& waiter, int64_t deadline);

    /// Gets the driving thread out of epoll_wait.
    void kick();

    /// Something more, or less, is pending: an operation, an event selection, bytes to be sent later.
    void add_pending(int count) { pending_.fetch_add(count, std::memory_order_seq_cst); }
    bool has_pending() const { return pending_.load(std::memory_order_seq_cst) > 0; }
    /// After add_pending: somebody must drive.
    void want_driver();

    // Of the engine.
    int descriptor() const { return set_; }
    uint64_t epoch() const { return epoch_.load(std::memory_order_relaxed); }
    uint64_t seen_epoch = 0;
    std::atomic<bool> adopted{false};
    Port* port() const { return port_; }

private:
    Port* const port_;
    int set_ = -1;
    int kick_ = -1;
    std::atomic<int> role_{0};
    std::atomic<int> pending_{0};
    std::atomic<uint64_t> epoch_{0};  ///< how often it has been driven
    Lock followers_lock_;
    std::atomic<int> follower_count_{0};
    Waiter* followers_ = nullptr;
};

/// The reactor of all sockets without a port; started at first use. nullptr: no descriptors left.
Reactor* common_reactor();

}  // namespace loopfast::winsock
