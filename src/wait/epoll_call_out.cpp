// Getting threads out of the kernel's set that sleep there since before it had streams. See epoll_set.h;
// models/callout.pml checks it.
#include <poll.h>

#include "base/clock.h"
#include "base/ready.h"
#include "base/real.h"
#include "wait/epoll_events.h"
#include "wait/epoll_set.h"

namespace loopfast {

namespace {

constexpr int64_t kLongestCallOut = 10'000'000'000;

}  // namespace

/// As H tells of E from now on: level-triggered (0) or EPOLLET.
bool EpollSet::tell_of_kernel(uint32_t how) {
    epoll_event event{EPOLLIN | how, {}};
    event.data.u64 = kOrdinaryEvent;
    // Fails where the descriptor by which E came in was closed, and another one means E now.
    return sys::epoll_ctl(hidden_, EPOLL_CTL_MOD, inner_, &event) == 0;
}

void EpollSet::call_out_of_kernel() {
    call_out_until_ = now_ns() + kLongestCallOut;
    calling_uncounted_ = calling_uncounted_ || early_sleepers_;
    early_sleepers_ = false;
    if (calling_out_)
        return;
    // They recognise the event by its data, which is a number that no program has.
    const uint64_t one = 1;
    sys::write(kick_, &one, sizeof one);
    tells_edges_ = tell_of_kernel(EPOLLET);
    calling_out_ = true;
    calls_out_.fetch_add(1, std::memory_order_release);
    show_kick();
}

void EpollSet::end_call_out() {
    calling_out_ = calling_uncounted_ = false;
    calls_out_.fetch_add(1, std::memory_order_release);
    show_kick();
    if (tells_edges_)
        tell_of_kernel(0);
    tells_edges_ = false;
}

void EpollSet::stay_in_kernel() {
    if (!calling_out_) [[likely]]
        return;
    // Who is still there may stay; the next stream calls again.
    early_sleepers_ = early_sleepers_ || calling_uncounted_;
    end_call_out();
}

bool EpollSet::calling_out() {
    if (calling_out_ && now_ns() >= call_out_until_) [[unlikely]]
        end_call_out();
    return calling_out_;
}

bool EpollSet::enter_kernel() {
    Hold hold(lock);  // claim() holds it as well: it sees us, or we see what it claimed
    if (has_managed())
        return false;
    stay_in_kernel();
    kernel_sleepers_.fetch_add(1, std::memory_order_relaxed);
    return true;
}

bool EpollSet::leave_kernel() {
    Hold hold(lock);
    ++kernel_waits_;
    const uint32_t left = kernel_sleepers_.fetch_sub(1, std::memory_order_relaxed) - 1;
    if (!calling_out_)
        return false;
    call_out_until_ = now_ns() + kLongestCallOut;
    if (left == 0 && !calling_uncounted_)
        end_call_out();
    return true;
}

int EpollSet::came_late(epoll_event* events, int count) {
    Hold hold(lock);
    const int kept = without_kicks(events, count);
    if (kept < count && calling_out_)
        call_out_until_ = now_ns() + kLongestCallOut;
    return kept;
}

int without_kicks(epoll_event* events, int count) {
    int kept = 0;
    for (int i = 0; i < count; ++i)
        if (events[i].data.u64 != kernel_kick_data())
            events[kept++] = events[i];
    return count < 0 ? count : kept;
}

/// Whether E has something for the program. While threads are called out of it, it always looks as if.
bool EpollSet::kernel_ready(int set_fd) {
    if (!calling_out()) [[likely]]
        return (ready_now(set_fd, POLLIN) & POLLIN) != 0;
    epoll_event event{0, {}};
    event.data.u64 = kernel_kick_data();
    sys::epoll_ctl(set_fd, EPOLL_CTL_MOD, kick_, &event);
    const bool ready = (ready_now(set_fd, POLLIN) & POLLIN) != 0;
    event.events = EPOLLIN;
    sys::epoll_ctl(set_fd, EPOLL_CTL_MOD, kick_, &event);
    return ready;
}

}  // namespace loopfast
