// A completion port: a queue of packets, and the threads that take them. Each port has a reactor; a thread
// that finds no packet drives it, so what it waits for it performs itself, without another thread to wake it.
//
// A thread that comes back for more, with nobody else waiting here, takes the quick way: it looks at the
// reactor's hot sockets, and what these complete goes straight to it: no queue, no lock of the port's, no
// role. It still counts as running then; since it takes what others post as soon as it is posted, nothing
// waits for it.
//
// The concurrency value: a thread that took a packet counts as running until it waits again, here or in any
// other wait of this library. No further thread is let at the packets while that many run. Windows knows of
// every wait in the system; we do not know of a thread that waits in, say, a mutex of the C library, so a
// tick of the engine looks whether those that count as running are asleep, and lets another one in if so.
#pragma once

#include <vector>

#include "winsock/handles.h"
#include "winsock/reactor.h"

namespace loopfast::winsock {

class Thread;

struct Packet {
    ULONG_PTR key;
    OVERLAPPED* overlapped;
    DWORD bytes;
    NTSTATUS status;
};

class Port : public Object {
public:
    static constexpr Kind kKind = Kind::kPort;
    explicit Port(DWORD concurrency);
    ~Port() override;
    void closed() override;

    Reactor reactor{this};

    /// @return false: closed, or no memory.
    bool push(const Packet& packet);
    /// GetQueuedCompletionStatusEx. @return 0 with `count` packets, WAIT_TIMEOUT, WAIT_IO_COMPLETION or
    /// ERROR_ABANDONED_WAIT_0.
    DWORD take(Packet* packets, ULONG capacity, ULONG& count, int64_t deadline, bool alertable);

    /// The role is free: a waiting thread is called to take it, if one more may run. @return whether.
    bool call_driver();
    /// @return whether packets are held back (see above), after one more was let in if that is due.
    bool let_more_run();

    /// The thread, which took packets here, waits or ended: it does not count as running. @return whether it
    /// did.
    bool stop_running(Thread& thread);
    void run_again(Thread& thread);
    /// The thread belongs to this port no more.
    void dissociate(Thread& thread);

private:
    /// Without the lock: a hint, except for what the caller itself, or whoever he heard from, has put there.
    bool empty() const {
        return head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_relaxed);
    }
    bool take_quickly(Thread& thread, Packet* packets, ULONG capacity, ULONG& count, int64_t deadline,
                      bool alertable);
    bool quick_way_is_open(Thread& thread, bool alertable) const;
    static bool look(void* context);
    bool may_run() const { return running_ < concurrency_; }
    void associate(Thread& thread);
    bool call_waiter();
    void remove(Waiter& waiter);
    void pop(Packet* packets, ULONG capacity, ULONG& count);

    Lock lock_;
    const DWORD concurrency_;
    DWORD running_ = 0;
    std::atomic<bool> closed_{false};
    std::vector<Packet> packets_;  ///< a ring, its size a power of two
    std::atomic<size_t> head_{0};  ///< of the next packet to be taken; counts on. Changed under the lock
    std::atomic<size_t> tail_{0};
    std::atomic<Waiter*> waiters_{nullptr};  ///< the latest first; changed under the lock
    Thread* threads_ = nullptr;              ///< those that took their latest packet here
};

/// While one lives, the calling thread does not count as running at its port: it waits elsewhere.
class NotRunning {
public:
    explicit NotRunning(Thread& thread);
    ~NotRunning();
    NotRunning(const NotRunning&) = delete;
    NotRunning& operator=(const NotRunning&) = delete;

private:
    Thread& thread_;
    bool counted_;
};

}  // namespace loopfast::winsock
