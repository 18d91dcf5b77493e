// Waiting on a set with streams: scan (epoll_scan.cpp), spin, sleep. See epoll_set.h.
#include <errno.h>
#include <poll.h>
#include <sys/random.h>

#include "base/own_calls.h"
#include "base/ready.h"
#include "base/real.h"
#include "base/ticks.h"
#include "stream/sleep.h"
#include "table/table.h"
#include "wait/chance.h"
#include "wait/epoll_events.h"
#include "wait/epoll_set.h"
#include "wait/sleeper.h"
#include "wait/spin.h"

namespace loopfast {

namespace {

constexpr int kHiddenEvents = 64;

}  // namespace

uint64_t kernel_kick_data() {
    static std::atomic<uint64_t> data{0};
    uint64_t value = data.load(std::memory_order_relaxed);
    if (value == 0) {
        uint64_t drawn = 0;
        if (getrandom(&drawn, sizeof drawn, GRND_NONBLOCK) != sizeof drawn || drawn == 0)
            drawn = ticks() * 0x9e3779b97f4a7c15ULL | 1;
        uint64_t nothing = 0;
        data.compare_exchange_strong(nothing, drawn, std::memory_order_relaxed);
        value = data.load(std::memory_order_relaxed);
    }
    return value;
}

bool EpollSet::can_sleep() {
    // What is owed to the kernel's set would end no sleep, and one that rings all the time would end each.
    return ensure_hidden(descriptor) && register_streams() && !owing_ && (!calling_out() || tells_edges_);
}

bool EpollSet::register_streams() {
    if (!unregistered_)
        return true;
    bool all = true;
    for (uint32_t i = 0; i < hot_count_; ++i) {
        const int fd = hot_[i];
        Interest& interest = *interests_.find(fd);
        Stream& stream = stream_at(interest.slot);
        if (interest.registered || stream.generation != interest.generation)
            continue;
        // Claimed and without a segment: another thread is about to install it. To sleep now would be to
        // sleep without this stream.
        all = stream.segment && register_one(fd, interest, stream) && all;
    }
    unregistered_ = !all;
    return all;
}

void EpollSet::arm_hot(uint64_t token) {
    for (uint32_t i = 0; i < hot_count_; ++i) {
        Interest& interest = *interests_.find(hot_[i]);
        Stream& stream = stream_at(interest.slot);
        if (stream.generation != interest.generation || !stream.segment || interest.disabled)
            continue;
        loopfast::arm(stream, stream.in().sleep.consumer, token);
        if ((interest.events & EPOLLOUT) != 0)
            loopfast::arm(stream, stream.out().sleep.producer, token);
    }
}

void EpollSet::disarm_hot(uint64_t token) {
    for (uint32_t i = 0; i < hot_count_; ++i) {
        Interest& interest = *interests_.find(hot_[i]);
        Stream& stream = stream_at(interest.slot);
        if (stream.generation != interest.generation || !stream.segment || interest.disabled)
            continue;
        disarm_word(stream.in().sleep.consumer, token);
        if ((interest.events & EPOLLOUT) != 0)
            disarm_word(stream.out().sleep.producer, token);
    }
}

/// What the program's own set has, without waiting. @return how many.
int EpollSet::take_ordinary(int set_fd, epoll_event* events, int capacity, const sigset_t* mask) {
    ++kernel_waits_;
    const int found = sys::epoll_pwait(set_fd, events, capacity, 0, mask);
    if (found <= 0)
        return mask != nullptr ? found : 0;
    // Filtered at all times: the call may be over by now, or a relative's, who shares the set.
    const int kept = without_kicks(events, found);
    if (kept != 0 || capacity != 1) [[likely]]
        return kept;
    // It took the only place. The kernel's list goes round: now it is another one's turn, if there is one.
    const int again = sys::epoll_pwait(set_fd, events, capacity, 0, nullptr);
    return again > 0 ? without_kicks(events, again) : 0;
}

/// What is about to return tells of everything that is ready by now, as the kernel would: a program may have
/// made a pipe or a listener ready before it called, and count on hearing of it. The look costs as much as
/// all the rest of a wait. So it is left out while there is always something on the rings, for ten
/// microseconds at most, unless this thread has made a call that may have made something else ready, or the
/// last look found something: what others do meanwhile is heard of as if it had happened so much later. Nor
/// is it left out where such calls are not all seen.
bool EpollSet::look_is_due() {
    if (ordinary_lively_ || unregistered_ || always_look_ || unseen_writes.load(std::memory_order_relaxed) ||
        looked_for_ != &own_calls || looked_calls_ != own_calls)
        return true;
    return ticks() - looked_when_ >= kTicksPer50us / 5;
}

/// A look without waiting at everything that is not scanned. `of_streams`: some of it is of streams, of
/// which the scan may have to tell more. @return events found, or -errno.
int EpollSet::look_at_kernel(int set_fd, epoll_event* events, int capacity, const sigset_t* mask,
                             bool& of_streams) {
    if (!ensure_hidden(descriptor)) [[unlikely]] {
        const int found = capacity > 0 ? take_ordinary(set_fd, events, capacity, mask) : 0;
        ordinary_lively_ = found > 0 || ordinary_first_;
        return found;
    }
    register_streams();
    looked_for_ = &own_calls;
    looked_calls_ = own_calls;
    looked_when_ = ticks();
    epoll_event hidden[kHiddenEvents];
    const int count = sys::epoll_pwait(hidden_, hidden, kHiddenEvents, 0, mask);
    ordinary_lively_ = ordinary_first_;
    if (count < 0)
        return count;
    bool ordinary = calling_out_;
    of_streams = handle_hidden(hidden, count, ordinary);
    return tell_in_order(set_fd, hidden, count, ordinary, events, capacity);
}

/// Streams that are always ready must not fill every report: the kernel's list goes round. @return how many
/// events are there before those of the streams, or -errno.
int EpollSet::take_ordinary_first(int set_fd, epoll_event* events, int capacity, const sigset_t* mask) {
    if (!ordinary_first_) [[likely]]
        return 0;
    ordinary_first_ = false;
    return take_ordinary(set_fd, events, capacity - capacity / 2, mask);
}

int EpollSet::wait_in_kernel(int set_fd, epoll_event* events, int capacity, int64_t timeout,
                             const sigset_t* mask, const HandlersSince& handlers, bool& again) {
    const int count = sleep_in_epoll(set_fd, events, capacity, timeout, mask, handlers);
    const bool called = leave_kernel();
    const int kept = without_kicks(events, count);
    // An entry that was claimed meanwhile has taken what it had to tell with it, before the kick could come.
    if (kept == 0 && (count > 0 || has_managed()))
        again = true;
    // A relative that shares the set calls its own threads: for as long as that lasts, naps; and where there
    // is no time left, whatever else the kernel has.
    if (again && !called && !has_managed()) [[unlikely]] {
        again = timeout != 0;
        if (!again)
            return without_kicks(events, sys::epoll_pwait(set_fd, events, capacity, 0, nullptr));
        sys::sleep_ns(1'000'000);
    }
    return kept;
}

/// A thread leaves with events while others sleep in this set. The bell that they would have needed may have
/// been ours: they come out, rescan what we leave behind, and arm it in their own names.
void EpollSet::pass_on() {
    if (sleepers_.load(std::memory_order_relaxed) != 0) [[unlikely]]
        kick();
}

int EpollSet::wait(int set_fd, epoll_event* events, int capacity, int64_t timeout, const sigset_t* mask,
                   bool may_spin) {
    if (capacity <= 0)
        return -EINVAL;
    occasion_for_all();
    if (telling_sets.load(std::memory_order_relaxed) != 0) [[unlikely]]
        settle_telling_sets();
    // seq_cst: Dekker with closing(). Who comes too late finds the descriptor closed.
    inside_.fetch_add(1, std::memory_order_seq_cst);
    int result = -EBADF;
    if (find_set(set_fd) == this || kept_.load(std::memory_order_seq_cst) >= 0)
        result = wait_inside(set_fd, events, capacity, timeout, mask, may_spin);
    if (inside_.fetch_sub(1, std::memory_order_seq_cst) == 1) {
        const int kept = kept_.exchange(-1, std::memory_order_seq_cst);
        if (kept >= 0) [[unlikely]]
            close_kept(kept);
    }
    return result;
}

/// Before a sleep, with the lock held.
int64_t EpollSet::time_to_spin() {
    if (hot_count_ == 0)
        return 0;
    const Stream& any = stream_at(interests_.find(hot_[0])->slot);
    return any.segment && peer_on_this_cpu(any) ? 0 : spin_time(history_);
}

bool EpollSet::spin(int64_t timeout, bool (*look)(void* context), void* context) {
    if (lock.take() != FamilyLock::Taken::kYes)
        return false;
    const int64_t time = time_to_spin();
    lock.unlock();
    return time > 0 && spin_until(history_, deadline_after(timeout), time, [&] { return look(context); });
}

int EpollSet::glance(int set_fd, epoll_event* events, int capacity) {
    const HoldIfFree hold(lock);
    if (!hold.held() || !has_managed() || !ensure_hidden(set_fd))
        return 0;
    descriptor = descriptor_now(set_fd);
    register_streams();
    epoll_event hidden[kHiddenEvents];
    const int count = sys::epoll_pwait(hidden_, hidden, kHiddenEvents, 0, nullptr);
    if (count <= 0)
        return 0;
    bool ordinary = calling_out_;
    handle_hidden(hidden, count, ordinary);
    int found = scan(events, capacity);
    if (some_left_) [[unlikely]]
        give_left_to_kernel();
    if (ordinary && !asked_ && found < capacity)
        found += take_ordinary(descriptor_now(set_fd), events + found, capacity - found);
    else if (ordinary && !asked_)
        ordinary_first_ = true;
    pass_on();
    return found;
}

int EpollSet::wait_inside(int set_fd, epoll_event* events, int capacity, int64_t timeout,
                          const sigset_t* mask, bool may_spin) {
    const HandlersSince handlers;
    const int64_t deadline = timeout == 0 ? 0 : deadline_after(timeout);
    for (bool again = true; again;) {
        again = false;
        // A handler on top of a wait of its own thread in this very set would find it half scanned; or see
        // lock.h.
        if (lock.take() != FamilyLock::Taken::kYes)
            return -EINTR;
        if (has_managed())
            break;
        stay_in_kernel();
        kernel_sleepers_.fetch_add(1, std::memory_order_relaxed);
        lock.unlock();
        const int count = wait_in_kernel(descriptor_now(set_fd), events, capacity,
                                         timeout == 0 ? 0 : time_left(deadline), mask, handlers, again);
        if (!again)
            return count;
    }
    // From here on the lock is held, except asleep.
    descriptor = descriptor_now(set_fd);
    for (bool first = true;; first = false) {
        if (tells_nested_) [[unlikely]]
            settle_nested();
        const int before = take_ordinary_first(descriptor_now(set_fd), events, capacity, mask);
        int found = before > 0 ? before : 0;
        ordinary_lively_ = ordinary_lively_ || found != 0;
        found += scan(events + found, capacity - found, false, before != 0);
        if (before < 0 && found == 0) [[unlikely]] {
            pass_on();
            lock.unlock();
            return before;
        }
        if (some_left_ || owing_) [[unlikely]] {
            give_left_to_kernel();
            asked_ = asked_ && found != 0;  // there is something new in the kernel's set
        }
        if (!asked_ && (found == 0 ? timeout == 0 || ordinary_lively_ : mask != nullptr || look_is_due())) {
            bool of_streams = false;
            const int more =
                look_at_kernel(descriptor_now(set_fd), events + found, capacity - found, mask, of_streams);
            if (more == -EINTR && found == 0) {
                pass_on();
                lock.unlock();
                return -EINTR;
            }
            found += more > 0 ? more : 0;
            if (found < capacity && more >= 0 && (of_streams || (timeout == 0 && found == 0)))
                found += scan(events + found, capacity - found, true, found != 0);  // what it told of streams
        }
        if (found == 0 && timeout != 0 && first && may_spin) {
            const int64_t time = time_to_spin();
            if (time > 0)
                spin_until(
                    history_, deadline, time,
                    [&] {
                        // Other threads get at the set in between.
                        found = scan(events, capacity);
                        if (found != 0)
                            return SpinStep::kReady;
                        if (handlers.any())
                            return SpinStep::kGiveUp;  // and so does the sleep
                        lock.unlock();
                        pause_cpu();
                        lock.lock();
                        return SpinStep::kGoOn;
                    },
                    looks_per_time(hot_count_));
        }
        if (found != 0 || timeout == 0) {
            pass_on();
            lock.unlock();
            return found;
        }

        if (!can_sleep()) {
            if (handlers.any()) {
                pass_on();
                lock.unlock();
                return -EINTR;
            }
            lock.unlock();
            sys::sleep_ns(200'000);
            lock.lock();
            if (time_left(deadline) == 0)
                timeout = 0;
            ordinary_lively_ = true;  // ordinary descriptors would end no sleep either: looked at each time
            continue;
        }
        const uint64_t token = new_sleep_token();
        arm_hot(token);
        found = scan(events, capacity);
        if (found == 0 && some_left_) [[unlikely]] {
            disarm_hot(token);
            continue;  // the kernel's set is told of it first
        }
        int64_t left = time_left(deadline);
        if (found == 0 && calling_out()) [[unlikely]] {
            found = take_ordinary(descriptor_now(set_fd), events, capacity);  // it rings no more, see above
            left = left < call_out_until_ - now_ns() ? left : call_out_until_ - now_ns();
            left = left < 1 && time_left(deadline) != 0 ? 1 : left;
        }
        if (found != 0 || left == 0) {
            disarm_hot(token);
            if (found != 0) {
                pass_on();
                lock.unlock();
                return found;
            }
            timeout = 0;  // one more look at everything, then the answer
            continue;
        }
        for (uint32_t i = 0; i < hot_count_; ++i) {
            Stream& stream = stream_at(interests_.find(hot_[i])->slot);
            if (stream.segment) {
                offer_pages_back(stream);
                if (left > kLookAgain && is_looked_at_again(stream)) [[unlikely]]
                    left = kLookAgain;
                stream.shared->counters.sleeps.fetch_add(1, std::memory_order_relaxed);
            }
        }
        sleepers_.fetch_add(1, std::memory_order_relaxed);
        lock.unlock();
        occasion_for_all();
        epoll_event hidden[kHiddenEvents];
        const int64_t start = now_ns();
        const int count = sleep_in_epoll(hidden_, hidden, kHiddenEvents, left, mask, handlers);
        lock.lock();
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
        disarm_hot(token);
        if (count < 0) {
            pass_on();
            lock.unlock();
            return count;
        }
        bool ordinary = false;
        handle_hidden(hidden, count, ordinary);
        if (count > (ordinary ? 1 : 0))
            slept(history_, now_ns() - start);
        ordinary = ordinary || calling_out_;
        ++round_;
        found = tell_in_order(descriptor_now(set_fd), hidden, count, ordinary, events, capacity);
        found += scan(events + found, capacity - found, true, ordinary);
        if (found != 0) {
            pass_on();
            lock.unlock();
            return found;
        }
        if (count == 0 && time_left(deadline) == 0) {
            pass_on();
            lock.unlock();
            return 0;
        }
    }
}

bool EpollSet::any_ready(int set_fd) {
    const HoldIfFree hold(lock);
    if (!hold.held())
        return false;
    if (tells_nested_) [[unlikely]]
        settle_nested();
    for (uint32_t i = 0; i < hot_count_; ++i) {
        const int fd = hot_[i];
        Interest& interest = *interests_.find(fd);
        Stream& stream = stream_at(interest.slot);
        if (stream.generation != interest.generation || !stream.segment || interest.disabled)
            continue;
        const uint32_t bits = ready_bits(fd, interest, stream);
        if (bits == 0)
            continue;
        if ((interest.events & EPOLLET) == 0 || has_edge(interest, stream, bits))
            return true;
    }
    return kernel_ready(set_fd);
}

int EpollSet::arm(int set_fd, uint64_t token) {
    const HoldIfFree hold(lock);
    if (!hold.held())
        return -1;
    if (some_left_ || owing_)
        give_left_to_kernel();
    if (!ensure_hidden(set_fd) || !can_sleep())
        return -1;
    arm_hot(token);
    // A thread that polls the set sleeps on it as well: others that take its events must wake it.
    sleepers_.fetch_add(1, std::memory_order_relaxed);
    return hidden_;
}

void EpollSet::disarm(uint64_t token) {
    Hold hold(lock);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    disarm_hot(token);
}

void EpollSet::poller_left() {
    Hold hold(lock);
    pass_on();
}

void EpollSet::take_hidden_events() {
    Hold hold(lock);
    if (hidden_ >= 0)
        take_hidden_events_locked();
}

void EpollSet::take_hidden_events_locked() {
    epoll_event hidden[kHiddenEvents];
    const int count = sys::epoll_pwait(hidden_, hidden, kHiddenEvents, 0, nullptr);
    bool ordinary = false;
    handle_hidden(hidden, count, ordinary);
}

}  // namespace loopfast
