// See port.h.
#include "winsock/port.h"

#include <fcntl.h>
#include <sched.h>

#include <cstdio>
#include <cstring>

#include "winsock/engine.h"
#include "winsock/thread.h"

namespace loopfast::winsock {

namespace {

constexpr size_t kFirstRoom = 64;
constexpr DWORD kUndecided = 1;

/// What the calling thread completes on its way to a packet of a port, while it drives its reactor or looks
/// at its hot sockets, is for itself: nobody is called for it.
struct Delivery {
    const Port* port;
    Packet* packets;  ///< where it goes if there is room, and nothing in the queue that is older
    ULONG capacity;
    ULONG count;
    bool alertable;
    Thread* thread;
};
thread_local Delivery* delivery = nullptr;

DWORD processors() {
    cpu_set_t set;
    const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 0 ? static_cast<DWORD>(count) : 1;
}

/// Whether a thread of this process is asleep, in any way; a thread that is gone is.
bool asleep(pid_t thread) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true;
    char text[128];
    const ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return true;
    text[size] = '\0';
    const char* const end = strrchr(text, ')');  // the name may contain anything
    return end != nullptr && end[1] == ' ' && end[2] != 'R';
}

}  // namespace

Port::Port(DWORD concurrency)
    : Object(kKind), concurrency_(concurrency != 0 ? concurrency : processors()), packets_(kFirstRoom) {}

Port::~Port() { reactor.stop(); }

void Port::closed() {
    Hold hold(lock_);
    closed_.store(true, std::memory_order_relaxed);
    for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next_at_port)
        waiter->call();
}

/// Calls a waiter that was not called yet, one that sleeps rather than the one that drives.
bool Port::call_waiter() {
    Waiter* best = nullptr;
    for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next_at_port) {
        if (waiter->called())
            continue;
        best = waiter;
        if (!waiter->is_driving())
            break;
    }
    if (best != nullptr)
        best->call();
    return best != nullptr;
}

void Port::remove(Waiter& waiter) {
    Waiter* other = waiters_.load(std::memory_order_relaxed);
    if (other == &waiter) {
        waiters_.store(waiter.next_at_port, std::memory_order_relaxed);
        return;
    }
    while (other->next_at_port != &waiter)
        other = other->next_at_port;
    other->next_at_port = waiter.next_at_port;
}

bool Port::push(const Packet& packet) {
    Delivery* const mine = delivery != nullptr && delivery->port == this ? delivery : nullptr;
    // What was posted before the peer could send this is seen in the queue: its sender came by there.
    if (mine != nullptr && mine->count < mine->capacity && empty()) [[likely]] {
        mine->packets[mine->count++] = packet;
        return true;
    }
    bool held_back;
    {
        Hold hold(lock_);
        if (closed_)
            return false;
        const size_t head = head_.load(std::memory_order_relaxed);
        const size_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - head == packets_.size()) {
            std::vector<Packet> larger(packets_.size() * 2);
            for (size_t at = head; at != tail; ++at)
                larger[at & (larger.size() - 1)] = packets_[at & (packets_.size() - 1)];
            packets_.swap(larger);
        }
        packets_[tail & (packets_.size() - 1)] = packet;
        tail_.store(tail + 1, std::memory_order_relaxed);
        if (mine != nullptr)
            return true;
        if (may_run())
            call_waiter();
        held_back = !may_run() && waiters_ != nullptr;
    }
    if (held_back)
        engine_wanted();
    return true;
}

void Port::pop(Packet* packets, ULONG capacity, ULONG& count) {
    size_t head = head_.load(std::memory_order_relaxed);
    for (count = 0; count < capacity && head != tail_.load(std::memory_order_relaxed); ++count)
        packets[count] = packets_[head++ & (packets_.size() - 1)];
    head_.store(head, std::memory_order_relaxed);
}

void Port::associate(Thread& thread) {
    if (thread.port != this) {
        keep();
        thread.port = this;
        thread.next_at_port = threads_;
        threads_ = &thread;
    }
    thread.counted = true;
    ++running_;
}

void Port::dissociate(Thread& thread) {
    stop_running(thread);
    {
        Hold hold(lock_);
        for (Thread** place = &threads_; *place != nullptr; place = &(*place)->next_at_port) {
            if (*place == &thread) {
                *place = thread.next_at_port;
                break;
            }
        }
    }
    thread.port = nullptr;
    let_go();
}

bool Port::stop_running(Thread& thread) {
    Hold hold(lock_);
    if (!thread.counted)
        return false;
    thread.counted = false;
    --running_;
    if (may_run() && (!empty() || (!reactor.driven() && reactor.has_pending())))
        call_waiter();
    return true;
}

void Port::run_again(Thread& thread) {
    Hold hold(lock_);
    thread.counted = true;
    ++running_;
}

bool Port::call_driver() {
    Hold hold(lock_);
    return may_run() && call_waiter();
}

bool Port::let_more_run() {
    Hold hold(lock_);
    if (closed_ || empty() || waiters_ == nullptr)
        return false;
    if (!may_run())
        for (Thread* thread = threads_; thread != nullptr; thread = thread->next_at_port) {
            if (thread->counted && asleep(thread->number)) {
                thread->counted = false;
                --running_;
                break;
            }
        }
    if (may_run())
        call_waiter();
    return true;
}

bool Port::quick_way_is_open(Thread& thread, bool alertable) const {
    // Relaxed: nobody relies on who is on this way. What is seen too late, or is posted after the last look,
    // is seen under the lock on the long way, or by the next call.
    return thread.port == this && thread.counted.load(std::memory_order_relaxed) &&
           waiters_.load(std::memory_order_relaxed) == nullptr && !reactor.driven() &&
           !reactor.adopted.load(std::memory_order_relaxed) && empty() &&
           !closed_.load(std::memory_order_relaxed) && !(alertable && thread.has_routines());
}

/// One look on the quick way. @return whether it ends here.
bool Port::look(void* context) {
    Delivery& mine = *static_cast<Delivery*>(context);
    Port& port = const_cast<Port&>(*mine.port);
    port.reactor.look_at_hot(
        [](void* pointer) {
            const Delivery& delivered = *static_cast<Delivery*>(pointer);
            return delivered.count == delivered.capacity;
        },
        context);
    return mine.count != 0 || !port.quick_way_is_open(*mine.thread, mine.alertable);
}

bool Port::take_quickly(Thread& thread, Packet* packets, ULONG capacity, ULONG& count, int64_t deadline,
                        bool alertable) {
    if (!reactor.has_hot() || !quick_way_is_open(thread, alertable))
        return false;
    Delivery mine{this, packets, capacity, 0, alertable, &thread};
    delivery = &mine;
    reactor.note_epoch();
    if (reactor.is_due() && reactor.try_take()) {
        reactor.glance();
        reactor.leave();
    }
    if (mine.count == 0 && !look(&mine))
        if (const int64_t left = left_until(deadline); left > 0)
            reactor.spin(left, look, &mine);
    delivery = nullptr;
    count = mine.count;
    // Nobody drives while we are away. The engine knows: it was told when the role was left last, and sees by
    // the epoch that we have been here.
    return count != 0;
}

DWORD Port::take(Packet* packets, ULONG capacity, ULONG& count, int64_t deadline, bool alertable) {
    Thread& thread = this_thread();
    if (take_quickly(thread, packets, capacity, count, deadline, alertable)) [[likely]]
        return 0;
    if (thread.port == this)
        stop_running(thread);
    else if (thread.port != nullptr)
        thread.port->dissociate(thread);
    count = 0;
    bool driving = false;
    for (bool first = true;; first = false) {
        thread.waiter.prepare();
        DWORD result = kUndecided;
        bool called = false;
        bool held_back = false;
        {
            Hold hold(lock_);
            if (closed_) {
                result = ERROR_ABANDONED_WAIT_0;
            } else if (!empty() && may_run()) {
                pop(packets, capacity, count);
                associate(thread);
                result = 0;
            } else if (alertable && thread.has_routines()) {
                result = WAIT_IO_COMPLETION;
            } else if (!first && left_until(deadline) == 0) {
                result = WAIT_TIMEOUT;
            } else {
                thread.waiter.next_at_port = waiters_;
                waiters_ = &thread.waiter;
                held_back = !empty();
            }
            if (result != kUndecided) {
                if (driving)
                    reactor.drop_role();
                // Who leaves sees to it that somebody else comes for what is left, and drives.
                called =
                    may_run() && (!empty() || (!reactor.driven() && reactor.has_pending())) && call_waiter();
                held_back = !empty() && waiters_ != nullptr;
            }
        }
        if (held_back)
            engine_wanted();
        if (result != kUndecided) {
            if (!reactor.driven() && !reactor.call_follower() && !called)
                reactor.want_driver();
            if (result == WAIT_IO_COMPLETION)
                thread.run_routines();
            return result;
        }
        driving = driving || reactor.try_take();
        if (driving) {
            Delivery mine{this, packets, 0, 0, alertable, &thread};
            delivery = &mine;
            reactor.drive(&thread.waiter, left_until(deadline));
            delivery = nullptr;
        } else {
            thread.waiter.sleep(deadline);
        }
        Hold hold(lock_);
        remove(thread.waiter);
    }
}

NotRunning::NotRunning(Thread& thread)
    : thread_(thread), counted_(thread.port != nullptr && thread.port->stop_running(thread)) {}

NotRunning::~NotRunning() {
    if (counted_ && thread_.port != nullptr)
        thread_.port->run_again(thread_);
}

}  // namespace loopfast::winsock
