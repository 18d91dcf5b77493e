// See reactor.h.
#include "winsock/reactor.h"

#include <cerrno>

#include "winsock/engine.h"
#include "winsock/native.h"
#include "winsock/port.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

namespace {
constexpr int kEvents = 64;
constexpr uint64_t kKick = ~uint64_t{0};
}  // namespace

void Waiter::call() {
    const int before = word_.exchange(kCalled, std::memory_order_seq_cst);
    if (before == kAsleep)
        futex_wake(word_);
    else if (before == kDriving)
        driving_->kick();
}

bool Reactor::start() {
    set_ = native::epoll_create();
    kick_ = native::event_create();
    if (set_ < 0 || kick_ < 0 ||
        native::epoll_control(set_, EPOLL_CTL_ADD, kick_, EPOLLIN | EPOLLET, kKick) < 0) {
        stop();
        return false;
    }
    engine_knows(this);
    return true;
}

void Reactor::stop() {
    engine_forgets(this);
    if (set_ >= 0)
        native::close(set_);
    if (kick_ >= 0)
        native::close(kick_);
    set_ = kick_ = -1;
}

void Reactor::kick() { native::event_signal(kick_); }

bool Reactor::try_take() {
    int expected = 0;
    if (!role_.compare_exchange_strong(expected, 1, std::memory_order_seq_cst))
        return false;
    if (adopted.load(std::memory_order_seq_cst)) [[unlikely]]
        engine_lets_go(*this);
    return true;
}

void Reactor::drive(Waiter* waiter, int64_t timeout) {
    epoch_.fetch_add(1, std::memory_order_relaxed);
    if (waiter != nullptr && !waiter->enter(*this))
        return;
    epoll_event events[kEvents];
    const int count = native::epoll_wait(set_, events, kEvents, timeout);
    if (waiter != nullptr)
        waiter->left();
    for (int i = 0; i < count; ++i)
        if (events[i].data.u64 != kKick)
            Socket::progress(events[i].data.u64, events[i].events);
}

bool Reactor::call_follower() {
    if (follower_count_.load(std::memory_order_seq_cst) == 0)
        return false;
    Hold hold(followers_lock_);
    if (followers_ == nullptr)
        return false;
    followers_->call();
    return true;
}

void Reactor::leave() {
    drop_role();
    if (call_follower() || (port_ != nullptr && port_->call_driver()))
        return;
    want_driver();
}

void Reactor::want_driver() {
    if (has_pending() && !driven() && !adopted.load(std::memory_order_seq_cst))
        engine_wanted();
}

void Reactor::wait(Waiter& waiter, int64_t deadline) {
    if (!try_take()) {
        {
            Hold hold(followers_lock_);
            waiter.next_follower = followers_;
            followers_ = &waiter;
            follower_count_.fetch_add(1, std::memory_order_seq_cst);
        }
        // Who left before seeing us left the role free; who leaves later sees us.
        const bool taken = try_take();
        if (!taken)
            waiter.sleep(deadline);
        {
            Hold hold(followers_lock_);
            for (Waiter** place = &followers_; *place != nullptr; place = &(*place)->next_follower) {
                if (*place == &waiter) {
                    *place = waiter.next_follower;
                    break;
                }
            }
            follower_count_.fetch_sub(1, std::memory_order_seq_cst);
        }
        if (!taken) {
            // The call may have been the one to take over, and we may not need to wait any more.
            if (!driven() && !call_follower())
                want_driver();
            return;
        }
    }
    drive(&waiter, left_until(deadline));
    leave();
}

Reactor* common_reactor() {
    static Reactor reactor(nullptr);
    static Lock starting;
    static std::atomic<bool> started{false};
    if (started.load(std::memory_order_acquire))
        return &reactor;
    Hold hold(starting);
    if (!started.load(std::memory_order_relaxed)) {
        if (!reactor.start())
            return nullptr;
        started.store(true, std::memory_order_release);
    }
    return &reactor;
}

}  // namespace loopfast::winsock
