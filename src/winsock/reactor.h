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

#include <vector>

#include "winsock/waiter.h"

struct epoll_event;

namespace loopfast::winsock {

class Port;
class Socket;

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

    // Hot sockets: those on the ring with something to receive. A thread that waits looks at them itself, by
    // a few loads each, before it asks libloopfast, and needs not have the role for that.
    bool has_hot() const { return hot_count_.load(std::memory_order_relaxed) != 0; }
    /// Performs what they are ready for, until there is something for the caller if `enough` says so.
    /// @return whether anything was performed.
    bool look_at_hot(bool (*enough)(void* context), void* context);
    /// Looks at them for as long as spinning pays. @return whether `done` said yes, which looks.
    bool spin(int64_t timeout, bool (*done)(void* context), void* context);
    /// Between looks at the hot ones alone: is it time to ask what else there is?
    bool is_due();
    /// Asks. By who has the role. @return whether there was something, and it was performed.
    bool glance();
    void note_epoch() { epoch_.store(epoch_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
    /// `socket` is looked at, or not any more.
    void warm(Socket& socket);
    void cool(Socket& socket);

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

    bool perform(const epoll_event* events, int count);
    void remove_hot(Socket& socket);
    Lock hot_lock_;  ///< before every other lock
    std::vector<Socket*> hot_;
    std::atomic<size_t> hot_count_{0};  ///< its size, for who does not hold the lock
    size_t next_hot_ = 0;
    std::atomic<uint64_t> glanced_{0};  ///< when, in ticks; this and the next are hints
    std::atomic<uint32_t> glances_{0};
};

/// The reactor of all sockets without a port; started at first use. nullptr: no descriptors left.
Reactor* common_reactor();
Reactor* common_reactor_if_started();

}  // namespace loopfast::winsock
