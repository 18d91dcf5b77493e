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
/// A few sockets are always looked at; of more, those without anything for this many looks are left to
/// libloopfast until something happens there again.
constexpr size_t kAlwaysHot = 8;
constexpr uint16_t kQuietLooks = 1024;
/// 50 us at 2 GHz.
constexpr uint64_t kGlanceTicks = 100'000;
constexpr uint32_t kGlancesPerWait = 8;
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
    note_epoch();
    const bool hot = has_hot();
    if (hot) {
        // What it performs may be what the caller waits for, and nobody else tells him: a port's driver is
        // not called for a packet that he puts there himself.
        if (is_due() && glance())
            return;
        struct Look {
            Reactor& reactor;
            const Waiter* waiter;
        } look{*this, waiter};
        const auto done = [](void* context) {
            const Look& mine = *static_cast<Look*>(context);
            return mine.reactor.look_at_hot(nullptr, nullptr) ||
                   (mine.waiter != nullptr && mine.waiter->called());
        };
        if (done(&look) || (timeout != 0 && spin(timeout, done, &look)))
            return;
    }
    if (waiter != nullptr && !waiter->enter(*this))
        return;
    epoll_event events[kEvents];
    const int count = native::epoll_wait(set_, events, kEvents, timeout, !hot);
    glanced_.store(__builtin_ia32_rdtsc(), std::memory_order_relaxed);
    if (waiter != nullptr)
        waiter->left();
    perform(events, count);
}

bool Reactor::perform(const epoll_event* events, int count) {
    bool any = false;
    for (int i = 0; i < count; ++i) {
        if (events[i].data.u64 == kKick)
            continue;
        Socket::progress(events[i].data.u64, events[i].events);
        any = true;
    }
    return any;
}

bool Reactor::look_at_hot(bool (*enough)(void* context), void* context) {
    bool any = false;
    Hold hold(hot_lock_);
    for (size_t left = hot_.size(); left > 0 && !hot_.empty(); --left) {
        if (next_hot_ >= hot_.size())
            next_hot_ = 0;
        Socket& socket = *hot_[next_hot_];
        switch (socket.progress_quickly()) {
        case Socket::Quick::kNothing:
            if (++socket.hot_quiet >= kQuietLooks && hot_.size() > kAlwaysHot)
                remove_hot(socket);
            else
                ++next_hot_;
            break;
        case Socket::Quick::kDone:
            any = true;
            socket.hot_quiet = 0;
            ++next_hot_;
            if (enough != nullptr && enough(context))
                return true;
            break;
        case Socket::Quick::kNotPlain:
            remove_hot(socket);
            break;
        }
    }
    return any;
}

bool Reactor::spin(int64_t timeout, bool (*done)(void* context), void* context) {
    return native::spin(set_, timeout, done, context);
}

bool Reactor::is_due() {
    // A hint: two threads that both find it due both ask.
    return __builtin_ia32_rdtsc() - glanced_.load(std::memory_order_relaxed) > kGlanceTicks;
}

bool Reactor::glance() {
    glanced_.store(__builtin_ia32_rdtsc(), std::memory_order_relaxed);
    const uint32_t number = glances_.load(std::memory_order_relaxed) + 1;
    glances_.store(number, std::memory_order_relaxed);
    epoll_event events[kEvents];
    return perform(events, number % kGlancesPerWait == 0 ? native::epoll_wait(set_, events, kEvents, 0, false)
                                                         : native::epoll_glance(set_, events, kEvents));
}

void Reactor::warm(Socket& socket) {
    Hold hold(hot_lock_);
    // closesocket marks the handle, then cools the socket under this lock; CreateIoCompletionPort changes the
    // reactor, then cools it at the old one. So who is let in here is taken out again by them. (The lock is a
    // full fence on this processor: they see it here, or it sees them here.)
    if (socket.hot_at.load(std::memory_order_relaxed) != nullptr || !socket.is_open() ||
        socket.reactor() != this)
        return;
    socket.hot_at.store(this, std::memory_order_relaxed);
    socket.hot_place = hot_.size();
    socket.hot_quiet = 0;
    hot_.push_back(&socket);
    hot_count_.store(hot_.size(), std::memory_order_relaxed);
}

void Reactor::cool(Socket& socket) {
    Hold hold(hot_lock_);
    if (socket.hot_at.load(std::memory_order_relaxed) == this)
        remove_hot(socket);
}

void Reactor::remove_hot(Socket& socket) {
    hot_[socket.hot_place] = hot_.back();
    hot_[socket.hot_place]->hot_place = socket.hot_place;
    hot_.pop_back();
    hot_count_.store(hot_.size(), std::memory_order_relaxed);
    socket.hot_at.store(nullptr, std::memory_order_relaxed);
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

namespace {

Reactor& the_common_reactor() {
    static auto* const reactor = new Reactor(nullptr);  // outlives every destructor
    return *reactor;
}
std::atomic<bool> common_started{false};

}  // namespace

Reactor* common_reactor_if_started() {
    // Acquire pairs with the release below.
    return common_started.load(std::memory_order_acquire) ? &the_common_reactor() : nullptr;
}

Reactor* common_reactor() {
    static Lock starting;
    if (Reactor* const reactor = common_reactor_if_started(); reactor != nullptr)
        return reactor;
    Hold hold(starting);
    if (!common_started.load(std::memory_order_relaxed)) {
        if (!the_common_reactor().start())
            return nullptr;
        common_started.store(true, std::memory_order_release);
    }
    return &the_common_reactor();
}

}  // namespace loopfast::winsock
