// See sleeper.h.
#include "wait/sleeper.h"

#include <errno.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/hidden.h"
#include "base/real.h"
#include "link/link.h"
#include "stream/sleep.h"
#include "table/arena.h"
#include "wait/caller.h"
#include "wait/chance.h"
#include "wait/spin.h"

namespace loopfast {

namespace {

/// What the kernel's calls with a mask are told of its size.
constexpr long kMaskSize = 8;

/// What SIOCOUTQ says of a link with some sixteen unread notes; it holds some 270.
constexpr int kFewNotes = 16 * 768;

struct ThreadWaiter {
    int epoll = -1;
    uint64_t id = 0;
};
thread_local ThreadWaiter waiter;

pthread_key_t waiter_key;
pthread_once_t waiter_once = PTHREAD_ONCE_INIT;
bool waiter_key_good = false;

void close_descriptors(ThreadWaiter& gone) {
    close_hidden(gone.epoll);
    gone = {};
}

void end_of_thread(void* value) {
    end_calls_of_thread();
    close_descriptors(*static_cast<ThreadWaiter*>(value));
}

bool open_waiter() {
    if (waiter.epoll >= 0)
        return true;
    pthread_once(&waiter_once, [] { waiter_key_good = pthread_key_create(&waiter_key, end_of_thread) == 0; });
    if (!waiter_key_good)
        return false;
    int made = sys::epoll_create(EPOLL_CLOEXEC);
    if (made == -EMFILE) {
        const RoomForOurs room;
        made = sys::epoll_create(EPOLL_CLOEXEC);
    }
    if (made < 0)
        return false;
    waiter.epoll = hide(made);
    if (waiter.epoll < 0)
        return false;
    // The descriptors go with the thread.
    pthread_setspecific(waiter_key, &waiter);
    waiter.id = new_sleep_token();
    return true;
}

// An event's data: generation, slot, and which of the two descriptors it is about.
uint64_t event_data(const Stream& stream, bool kernel) {
    return uint64_t{stream.generation} << 32 | uint64_t{stream.slot} << 1 | (kernel ? 1 : 0);
}

bool register_with_waiter(Stream& stream, int fd, Want want) {
    auto& registered = want == Want::kReceive ? stream.registered_receiver : stream.registered_sender;
    if (registered.load(std::memory_order_relaxed) == waiter.id)
        return true;
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    event.data.u64 = event_data(stream, false);
    int result =
        sys::epoll_ctl(waiter.epoll, EPOLL_CTL_ADD, stream.link.load(std::memory_order_relaxed), &event);
    if (result < 0 && result != -EEXIST)
        return false;
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    event.data.u64 = event_data(stream, true);
    result = sys::epoll_ctl(waiter.epoll, EPOLL_CTL_ADD, fd, &event);
    // Another thread may have closed the number, and used it again, just before that. It stored the duplicate
    // first; so one that is seen here is what counts, and one that is not was not needed.
    if (const int now = reached_by(stream, fd); now != fd) [[unlikely]] {
        sys::epoll_ctl(waiter.epoll, EPOLL_CTL_DEL, fd, &event);
        result = sys::epoll_ctl(waiter.epoll, EPOLL_CTL_ADD, now, &event);
    }
    if (result < 0 && result != -EEXIST)
        return false;
    // An edge from before may have been taken by a wait for another stream; it left its mark then. Only
    // what the kernel socket says now is not known here.
    forget_kernel_readiness(stream);
    registered.store(waiter.id, std::memory_order_relaxed);
    return true;
}

void take_events(const epoll_event* events, int count) {
    for (int i = 0; i < count; ++i) {
        const uint64_t data = events[i].data.u64;
        const auto slot = static_cast<uint32_t>(data >> 1 & 0x7fffffff);
        if (slot >= kSlots)
            continue;
        Stream& stream = stream_at(slot);
        if (stream.generation != static_cast<uint32_t>(data >> 32))
            continue;  // of a connection that is gone
        if ((data & 1) != 0)
            kernel_event(stream);
        else
            link_event(stream, events[i].events);
    }
}

}  // namespace

bool is_ready(Stream& stream, int fd, Want want, uint64_t more_than) {
    if (want == Want::kReceive) {
        if (more_than != 0) {
            // Bytes that were seen already, and are not taken, may lie on either lane or on both.
            constexpr uint32_t kOver = POLLRDHUP | POLLHUP | POLLERR;
            const uint64_t waiting = bytes_waiting(stream, fd);
            return (waiting > more_than && waiting >= low_water(stream)) ||
                   (readiness(stream, fd, Freshness::kCached) & kOver) != 0;
        }
        if (stream.in_in_ring() && stream.state() != State::kKernel) {
            const uint64_t there = stream.reader().available();
            stream.reader().expect_read();  // in a spin the bytes come while the head does
            const uint64_t mark = low_water(stream);
            if (there >= mark || (waits_on_both_lanes(stream) && bytes_waiting(stream, fd) >= mark))
                return true;
            const uint32_t kernel = kernel_readiness(stream, fd, Freshness::kCached);
            return (kernel & (POLLIN | POLLRDHUP | POLLHUP | POLLERR)) != 0;
        }
        return (readiness(stream, fd, Freshness::kCached) & (POLLIN | POLLRDHUP | POLLHUP | POLLERR)) != 0;
    }
    return (readiness(stream, fd, Freshness::kCached) & (POLLOUT | POLLHUP | POLLERR)) != 0 ||
           stream.shared->send_to_kernel.load(std::memory_order_relaxed) != 0;
}

int sleep_in_epoll(int set, epoll_event* events, int capacity, int64_t left, const sigset_t* mask,
                   const HandlersSince& handlers) {
    static std::atomic<bool> precise{true};
    if (left == 0) {  // no sleep, which no handler ends
        const int result = real::epoll_pwait(set, events, capacity, 0, mask);
        return result < 0 ? -errno : result;
    }
    const long where = sys::word(events);
    const long masked = sys::word(mask);
    if (left != kForever) {
        if (precise.load(std::memory_order_relaxed)) {
            timespec storage;
            const timespec* const time = as_timespec(left, storage);
            const long result = sleep_in_call(SYS_epoll_pwait2, set, where, capacity, sys::word(time), masked,
                                              kMaskSize, handlers);
            if (result != -ENOSYS)
                return static_cast<int>(result);
            precise.store(false, std::memory_order_relaxed);  // before Linux 5.11
        }
        left = (left + 999'999) / 1'000'000;
    }
    const long milliseconds = left == kForever ? -1 : left < INT32_MAX ? left : INT32_MAX;
    return static_cast<int>(
        sleep_in_call(SYS_epoll_pwait, set, where, capacity, milliseconds, masked, kMaskSize, handlers));
}

void link_event(Stream& stream, uint32_t events) {
    if ((events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) != 0) {
        stream.link_down.store(true, std::memory_order_relaxed);
        forget_kernel_readiness(stream);
    }
    // The bell itself stays where it is, see drain_notes. Harmless: the word is only compared.
    const uint64_t drained = stream.out().consumer.drained.load(std::memory_order_relaxed).harmless();
    if (drained == stream.drained_seen)
        return;
    stream.drained_seen = drained;
    FamilyLock& lock = stream.shared->send_lock;
    if (lock.take() != FamilyLock::Taken::kYes)
        return;
    if (stream.segment)
        stream.writer().give_back();
    lock.unlock();
}

void arm(Stream& stream, Untrusted<uint64_t>& word, uint64_t token) {
    constexpr uint32_t kDrainEvery = 64;
    attend(stream);
    // Counted for the whole family, which shares the link. Relaxed: a few too many or too few do no harm.
    auto& armings = stream.shared->armings;
    if (armings.fetch_add(1, std::memory_order_relaxed) >= kDrainEvery) {
        armings.store(0, std::memory_order_relaxed);
        const HoldIfFree hold(stream.shared->link_lock);
        if (hold.held())
            drain_notes(stream.link.load(std::memory_order_relaxed));
    }
    arm_word(word, token);
}

void heal(Stream& stream) {
    if (stream.shared->had_relatives.load(std::memory_order_relaxed) == 0)
        return;
    ring_both(stream);
}

void offer_pages_back(Stream& stream) {
    // Only a reader that was in the large window has seen a backlog worth telling of; the record's offset
    // names it. Not more often than every 100 ms: who is about to fill it again would only pay for it.
    const Jump jump(stream.shared->consumer.jump.load(std::memory_order_relaxed));
    if (jump.kind() != Jump::kGrow || stream.drained_told == jump.at())
        return;
    const uint64_t now = ticks();
    if (now - stream.drained_when < 100 * kTicksPerMs || stream.reader().available() != 0)
        return;
    // No arming of the peer pays for this note, so nothing makes it read the link: not before the last few
    // were taken, lest they fill it and a bell that somebody sleeps for is lost.
    int unread = 0;
    const int link = stream.link.load(std::memory_order_relaxed);
    stream.drained_when = now;
    if (sys::ioctl(link, SIOCOUTQ, &unread) < 0 || unread > kFewNotes)
        return;
    stream.drained_told = jump.at();
    stream.in().consumer.drained.store(jump.at(), std::memory_order_release);
    send_note(link, Note::kBell);
}

int watch_in_thread(Stream& stream, int fd) {
    return open_waiter() && register_with_waiter(stream, fd, Want::kReceive) ? waiter.epoll : -1;
}

void take_thread_events() {
    constexpr int kAtOnce = 16;
    epoll_event events[kAtOnce];
    int count = kAtOnce;
    while (waiter.epoll >= 0 && count == kAtOnce) {
        count = sys::epoll_pwait(waiter.epoll, events, kAtOnce, 0, nullptr);
        if (count > 0)
            take_events(events, count);
    }
}

namespace {

WaitResult after_interruption(const HandlersSince& handlers) {
    // A handler that did not come back to us, or none, as after SIGSTOP and SIGCONT: the wait goes on.
    if (!handlers.any())
        return WaitResult::kReady;
    return handlers.interrupting() ? WaitResult::kInterrupted : WaitResult::kRestarted;
}

}  // namespace

WaitResult wait_for(Stream& stream, int fd, Want want, int64_t deadline, const HandlersSince& handlers,
                    uint64_t more_than) {
    SpinHistory& history = want == Want::kReceive ? stream.receive_spin : stream.send_spin;
    const int64_t time = peer_on_this_cpu(stream) ? 0 : spin_time(history);
    if (time > 0 && spin_until(history, deadline, time, [&] {
            return is_ready(stream, reached_by(stream, fd), want, more_than) ? SpinStep::kReady
                   : handlers.any()                                          ? SpinStep::kGiveUp
                                                                             : SpinStep::kGoOn;
        }))
        return WaitResult::kReady;
    if (handlers.any())
        return after_interruption(handlers);
    if (!open_waiter() || !register_with_waiter(stream, reached_by(stream, fd), want)) {
        // No descriptor to sleep on: a short nap, and look again.
        sys::sleep_ns(200'000);
        return time_left(deadline) == 0 ? WaitResult::kTimeout : WaitResult::kReady;
    }
    const uint64_t token = new_sleep_token();
    auto& word = want == Want::kReceive ? stream.in().sleep.consumer : stream.out().sleep.producer;
    arm(stream, word, token);
    if (is_ready(stream, reached_by(stream, fd), want, more_than)) {
        disarm_word(word, token);
        return WaitResult::kReady;
    }
    int64_t left = time_left(deadline);
    if (left == 0) {
        disarm_word(word, token);
        return WaitResult::kTimeout;
    }
    occasion(stream, reached_by(stream, fd));
    if (left > kLookAgain && is_looked_at_again(stream)) [[unlikely]]
        left = kLookAgain;
    if (want == Want::kReceive)
        offer_pages_back(stream);
    heal(stream);
    stream.shared->counters.sleeps.fetch_add(1, std::memory_order_relaxed);
    epoll_event events[16];
    const int64_t start = now_ns();
    const int count = sleep_in_epoll(waiter.epoll, events, 16, left, nullptr, handlers);
    disarm_word(word, token);
    if (count > 0) {
        take_events(events, count);
        slept(history, now_ns() - start);
        return WaitResult::kReady;
    }
    if (count == -EINTR)
        return after_interruption(handlers);
    return count == 0 && time_left(deadline) == 0 ? WaitResult::kTimeout : WaitResult::kReady;
}

void forget_thread_waiter() {
    if (waiter.epoll >= 0) {
        pthread_setspecific(waiter_key, nullptr);
        close_descriptors(waiter);
    }
}

}  // namespace loopfast
