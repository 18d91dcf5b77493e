// A completion port: a queue of packets, and the threads that take them. Each port has a reactor; a thread
// that finds no packet drives it, so what it waits for it performs itself, without another thread to wake it.
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
    bool empty() const { return head_ == tail_; }
    bool may_run() const { return running_ < concurrency_; }
    void associate(Thread& thread);
    bool call_waiter();
    void remove(Waiter& waiter);
    void pop(Packet* packets, ULONG capacity, ULONG& count);

    Lock lock_;
    const DWORD concurrency_;
    DWORD running_ = 0;
    bool closed_ = false;
    std::vector<Packet> packets_;  ///< a ring, its size a power of two
    size_t head_ = 0;              ///< of the next packet to be taken; counts on
    size_t tail_ = 0;
    Waiter* waiters_ = nullptr;  ///< the latest first
    Thread* threads_ = nullptr;  ///< those that took their latest packet here
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
