// Waiting on a set with streams: scan, spin, sleep. See epoll_set.h.
#include <errno.h>
#include <poll.h>
#include <sys/random.h>

#include <utility>

#include "base/real.h"
#include "base/ticks.h"
#include "link/link.h"
#include "stream/counters.h"
#include "stream/sleep.h"
#include "table/table.h"
#include "wait/epoll_events.h"
#include "wait/epoll_set.h"
#include "wait/sleeper.h"
#include "wait/spin.h"

namespace loopfast {

namespace {

/// A few streams are always scanned; of more, those without an event for this many scans cool down.
constexpr uint32_t kAlwaysHot = 8;
constexpr uint16_t kQuietScans = 1024;
constexpr int kHiddenEvents = 64;

constexpr uint32_t kAlwaysReported = EPOLLERR | EPOLLHUP;
constexpr uint32_t kEnded = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

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

namespace {

/// A kick that gets threads out of the kernel's set is nothing that the program added.
int without_kicks(epoll_event* events, int count) {
    int kept = 0;
    for (int i = 0; i < count; ++i)
        if (events[i].data.u64 != kernel_kick_data())
            events[kept++] = events[i];
    return count < 0 ? count : kept;
}

}  // namespace

uint32_t EpollSet::ready_bits(int fd, Interest& interest, Stream& stream) {
    if (interest.via != 0) [[unlikely]]
        fd = interest.via - 1;
    // Poll bits and epoll bits are the same numbers.
    uint32_t ready;
    if (interest.registered && plain_readiness(stream, interest.events, ready))
        return ready & interest.events;
    some_left_ = some_left_ || stream.state() == State::kKernel;
    return readiness(stream, fd, interest.registered ? Freshness::kCached : Freshness::kRecent) &
           (interest.events | kAlwaysReported);
}

namespace {

/// What the kernel connection says of its end, as far as it is known: kUnknown changes nothing.
uint32_t end_of(const Interest& interest, const Stream& stream) {
    const uint32_t kernel = cached_kernel_readiness(stream);
    return (kernel & kUnknown) != 0 ? interest.seen_ended : kernel & kEnded;
}

}  // namespace

bool EpollSet::has_edge(const Interest& interest, const Stream& stream, uint32_t bits) {
    // Harmless: only compared for "something new came".
    const uint64_t position = stream.in().producer.head.load(std::memory_order_relaxed).harmless();
    const uint32_t full = stream.shared->full_count.load(std::memory_order_relaxed);
    // As the kernel filters its wake-ups: what arrives is news only to those who want to read.
    const bool arrived =
        position != interest.seen_position && (interest.events & (EPOLLIN | EPOLLRDNORM)) != 0;
    const bool room_again = (bits & EPOLLOUT) != 0 && full != interest.seen_full;
    // The end is news to everybody, whatever he asked for. An error that somebody has collected is gone,
    // which is none.
    const bool ended = (end_of(interest, stream) & ~interest.seen_ended) != 0;
    // Bytes that came over the kernel lane after the last report are news too, even when they have been read
    // by now and what lies unread is the ring's, which that report told of: who reads as many bytes as
    // FIONREAD said (nginx) counts on an edge for all that came later. A sender with a full window has such
    // bytes in its own queue.
    const bool late = stream.in_in_ring() && stream.shared->peer_left.load(std::memory_order_relaxed) == 0 &&
                      stream.shared->kernel_in.load(std::memory_order_relaxed) > interest.seen_in_kernel &&
                      (interest.events & (EPOLLIN | EPOLLRDNORM)) != 0;
    return interest.edge || arrived || room_again || ended || late;
}

bool EpollSet::report_edge(int fd, Interest& interest, Stream& stream, uint32_t bits) {
    // Before the look: what comes after it is news the next time. Harmless: only compared.
    const uint64_t position = stream.in().producer.head.load(std::memory_order_relaxed).harmless();
    const uint32_t full = stream.shared->full_count.load(std::memory_order_relaxed);
    const uint32_t now_ended = end_of(interest, stream);
    const bool in_ring = stream.in_in_ring();
    const uint64_t by_kernel = stream.shared->kernel_in.load(std::memory_order_relaxed);
    if (!has_edge(interest, stream, bits))
        return false;
    interest.edge = false;
    interest.seen_position = position;
    if (!in_ring || stream.shared->peer_left.load(std::memory_order_relaxed) != 0) [[unlikely]]
        interest.seen_in_kernel = received_by_kernel(fd);
    else if (by_kernel > interest.seen_in_kernel) [[unlikely]]
        interest.seen_in_kernel = by_kernel;
    interest.seen_ended = now_ended;
    if ((bits & EPOLLOUT) != 0)
        interest.seen_full = full;
    return true;
}

int EpollSet::scan(epoll_event* events, int capacity) {
    int found = 0;
    int ended = 0;
    const uint32_t count = hot_count_;
    uint32_t place = count > 0 ? next_scan_ % count : 0;
    const uint32_t start = place;
    bool wrapped = false;
    for (uint32_t i = 0; i < count && found < capacity; ++i) {
        if (place >= hot_count_) {
            place = 0;
            wrapped = true;
        }
        if (hot_count_ == 0)
            break;
        const int fd = hot_[place];
        Interest& interest = *interests_.find(fd);
        Stream& stream = stream_at(interest.slot);
        ++place;
        if (stream.generation != interest.generation || !stream.segment || interest.disabled)
            continue;
        const uint32_t bits = ready_bits(fd, interest, stream);
        if (some_left_ && stream.state() == State::kKernel) [[unlikely]]
            continue;  // the kernel's set reports it, once it is there again
        if (bits == 0 || ((interest.events & EPOLLET) != 0 && !report_edge(fd, interest, stream, bits))) {
            // The last one took its place in the list, and is looked at now unless it has been: nothing may
            // be reported twice in one call, or missed before a sleep.
            if (++interest.quiet >= kQuietScans && count > kAlwaysHot && try_cooling(fd, interest, stream) &&
                !(wrapped && hot_count_ >= start))
                --place;
            continue;
        }
        interest.quiet = 0;
        if ((interest.events & EPOLLONESHOT) != 0)
            interest.disabled = true;
        events[found].events = bits;
        events[found].data.u64 = interest.data;
        // Ends first: an end is known the moment it comes, and what else is ready mostly came after it.
        if ((cached_kernel_readiness(stream) & kEnded) != 0 &&
            (cached_kernel_readiness(stream) & kUnknown) == 0)
            std::swap(events[ended++], events[found]);
        ++found;
    }
    next_scan_ = place;
    return found;
}

/// A quiet stream is armed for good and leaves the list. @return false if it came to life meanwhile.
bool EpollSet::try_cooling(int fd, Interest& interest, Stream& stream) {
    if (!interest.registered)
        return false;
    loopfast::arm(stream, stream.in().sleep.consumer, kAlwaysRing);
    if ((interest.events & EPOLLOUT) != 0)
        loopfast::arm(stream, stream.out().sleep.producer, kAlwaysRing);
    interest.quiet = 0;
    const bool edge_triggered = (interest.events & EPOLLET) != 0;
    const uint64_t position = stream.in().producer.head.load(std::memory_order_acquire).harmless();
    if (edge_triggered ? position != interest.seen_position || interest.edge
                       : ready_bits(fd, interest, stream) != 0)
        return false;
    make_cold(interest);
    return true;
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

namespace {

/// The peer left the ring. It hung the link up before it sent anything over the kernel lane.
bool goes_on_in_kernel(Stream& stream, int fd) {
    if (!stream.link_down.load(std::memory_order_relaxed) &&
        hung_up(stream.link.load(std::memory_order_relaxed)))
        stream.link_down.store(true, std::memory_order_relaxed);
    return peer_left(stream, fd);
}

/// Whether news of the kernel's socket is an edge of the stream: room while we send over it, bytes while we
/// receive over it. An entry that was just made is told of what is there already; so bytes are counted.
bool is_edge(int fd, Interest& interest, Stream& stream, uint32_t news) {
    const bool had_room = interest.had_room;
    interest.had_room = false;
    news &= ~kEnded;  // report_edge looks at the end itself
    if (news == 0)
        return false;
    // Once our half is shut down, the kernel's news are of the connection's state.
    if ((news & ~static_cast<uint32_t>(EPOLLOUT)) == 0)
        return !had_room && (!stream.out_in_ring() || half_shut(stream));
    // With the ring in use there is news only at the end, and when the peer goes on over the kernel.
    if (stream.in_in_ring() && !goes_on_in_kernel(stream, fd))
        return false;
    const bool only_bytes = (news & ~static_cast<uint32_t>(EPOLLIN | EPOLLRDNORM | EPOLLOUT)) == 0;
    return !only_bytes || received_by_kernel(fd) != interest.seen_in_kernel;
}

}  // namespace

void EpollSet::handle_hidden(const epoll_event* events, int count, bool& ordinary) {
    for (int i = 0; i < count; ++i) {
        const uint64_t data = events[i].data.u64;
        if (data == kOrdinaryEvent) {
            ordinary = true;
            continue;
        }
        if (data == kKickEvent)
            continue;
        const int fd = static_cast<int>(data >> 1);
        Interest* interest = interests_.find(fd);
        if (interest == nullptr || !interest->managed)
            continue;
        Stream& stream = stream_at(interest->slot);
        if (stream.generation != interest->generation || !stream.segment)
            continue;
        if ((data & 1) != 0) {
            kernel_event(stream);
            if (is_edge(fd, *interest, stream, events[i].events & (interest->events | kAlwaysReported)))
                interest->edge = true;
        } else {
            link_event(stream, events[i].events);
        }
        if (!interest->dormant)
            make_hot(fd, *interest);
        if (stream.set_entries.load(std::memory_order_relaxed) > 1) {
            // One link, several entries (duplicates of the descriptor): all are looked at.
            interests_.each([&](int number, Interest& other) {
                if (other.managed && !other.dormant && other.slot == interest->slot)
                    make_hot(number, other);
            });
        }
    }
}

/// What the program's own set has, without waiting. @return how many.
int EpollSet::take_ordinary(int set_fd, epoll_event* events, int capacity) {
    ++kernel_waits_;
    const int found = sys::epoll_pwait(set_fd, events, capacity, 0, nullptr);
    return found <= 0 ? 0 : kicked_kernel_ ? without_kicks(events, found) : found;
}

/// A look without waiting at everything that is not scanned. @return ordinary events found, or -errno.
int EpollSet::look_at_kernel(int set_fd, epoll_event* events, int capacity, const sigset_t* mask) {
    register_streams();
    epoll_event hidden[kHiddenEvents];
    const int count = sys::epoll_pwait(hidden_, hidden, kHiddenEvents, 0, mask);
    if (count < 0)
        return count;
    bool ordinary = false;
    handle_hidden(hidden, count, ordinary);
    if (!ordinary || capacity <= 0)
        return 0;
    return take_ordinary(set_fd, events, capacity);
}

bool EpollSet::enter_kernel() {
    Hold hold(lock);  // claim() holds it as well: it sees us, or we see what it claimed
    if (has_managed())
        return false;
    kernel_sleepers_.fetch_add(1, std::memory_order_relaxed);
    return true;
}

bool EpollSet::leave_kernel() {
    Hold hold(lock);
    ++kernel_waits_;
    const uint32_t left = kernel_sleepers_.fetch_sub(1, std::memory_order_relaxed) - 1;
    if (!kicked_kernel_)
        return false;
    const uint64_t one = 1;
    if (left == 0) {
        sys::epoll_ctl(descriptor, EPOLL_CTL_DEL, kick_, nullptr);
        kicked_kernel_ = false;
    } else {
        sys::write(kick_, &one, sizeof one);  // the next one
    }
    return true;
}

int EpollSet::wait_in_kernel(int set_fd, epoll_event* events, int capacity, int64_t timeout,
                             const sigset_t* mask, bool& again) {
    int count = sleep_in_epoll(set_fd, events, capacity, timeout, mask);
    if (!leave_kernel())
        return count;
    const int kept = without_kicks(events, count);
    if (count > 0 && kept == 0)
        again = true;
    return kept;
}

/// A thread leaves with events while others sleep in this set. The bell that they would have needed may have
/// been ours: they come out, rescan what we leave behind, and arm it in their own names.
void EpollSet::pass_on() {
    if (sleepers_.load(std::memory_order_relaxed) != 0) [[unlikely]]
        kick();
}

int EpollSet::wait(int set_fd, epoll_event* events, int capacity, int64_t timeout, const sigset_t* mask) {
    if (capacity <= 0)
        return -EINVAL;
    // seq_cst: Dekker with closing(). Who comes too late finds the descriptor closed.
    inside_.fetch_add(1, std::memory_order_seq_cst);
    int result = -EBADF;
    if (find_set(set_fd) == this || kept_.load(std::memory_order_seq_cst) >= 0)
        result = wait_inside(set_fd, events, capacity, timeout, mask);
    if (inside_.fetch_sub(1, std::memory_order_seq_cst) == 1) {
        const int kept = kept_.exchange(-1, std::memory_order_seq_cst);
        if (kept >= 0) [[unlikely]]
            close_kept(kept);
    }
    return result;
}

int EpollSet::wait_inside(int set_fd, epoll_event* events, int capacity, int64_t timeout,
                          const sigset_t* mask) {
    const int64_t deadline = timeout == 0 ? 0 : deadline_after(timeout);
    for (bool again = true; again;) {
        again = false;
        lock.lock();
        if (has_managed())
            break;
        kernel_sleepers_.fetch_add(1, std::memory_order_relaxed);
        lock.unlock();
        const int count = wait_in_kernel(descriptor_now(set_fd), events, capacity,
                                         timeout == 0 ? 0 : time_left(deadline), mask, again);
        if (!again)
            return count;
    }
    // From here on the lock is held, except asleep.
    descriptor = descriptor_now(set_fd);
    if (!ensure_hidden(descriptor)) {
        lock.unlock();
        return -ENOMEM;
    }
    for (bool first = true;; first = false) {
        int found = scan(events, capacity);
        if (some_left_) [[unlikely]]
            give_left_to_kernel();
        if (found != 0 || timeout == 0 || ordinary_lively_) {
            // What is about to return tells of everything that is ready by now, as the kernel would: a
            // program may have made a pipe or a timer ready before it called, and count on hearing of it.
            const int more = look_at_kernel(descriptor_now(set_fd), events + found, capacity - found, mask);
            if (more == -EINTR && found == 0) {
                pass_on();
                lock.unlock();
                return -EINTR;
            }
            ordinary_lively_ = more > 0;
            found += more > 0 ? more : 0;
            if (found < capacity && more >= 0 && timeout == 0 && found == 0)
                found = scan(events, capacity);  // what the look brought back to the list
        }
        if (found == 0 && timeout != 0 && first && hot_count_ != 0) {
            Stream& any = stream_at(interests_.find(hot_[0])->slot);
            const int64_t time = any.segment && peer_on_this_cpu(any) ? 0 : spin_time(history_);
            if (time > 0)
                spin_until(history_, deadline, time, [&] {
                    // Other threads get at the set in between.
                    found = scan(events, capacity);
                    if (found != 0)
                        return true;
                    lock.unlock();
                    pause_cpu();
                    lock.lock();
                    return false;
                });
        }
        if (found != 0 || timeout == 0) {
            pass_on();
            lock.unlock();
            return found;
        }

        if (!register_streams()) {
            lock.unlock();
            sys::sleep_ns(200'000);
            lock.lock();
            if (time_left(deadline) == 0)
                timeout = 0;
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
                if (left > kLookAgain && has_to_return(stream)) [[unlikely]]
                    left = kLookAgain;
                stream.shared->counters.sleeps.fetch_add(1, std::memory_order_relaxed);
            }
        }
        sleepers_.fetch_add(1, std::memory_order_relaxed);
        lock.unlock();
        epoll_event hidden[kHiddenEvents];
        const int64_t start = now_ns();
        const int count = sleep_in_epoll(hidden_, hidden, kHiddenEvents, left, mask);
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
        found = scan(events, capacity);
        if (ordinary && found < capacity) {
            const int more = take_ordinary(descriptor_now(set_fd), events + found, capacity - found);
            ordinary_lively_ = more > 0;
            found += more;
        }
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
    Hold hold(lock);
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
    return (sys::ready_now(set_fd, POLLIN) & POLLIN) != 0;
}

int EpollSet::arm(int set_fd, uint64_t token) {
    Hold hold(lock);
    if (!ensure_hidden(set_fd) || !register_streams())
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
    if (hidden_ < 0)
        return;
    epoll_event hidden[kHiddenEvents];
    const int count = sys::epoll_pwait(hidden_, hidden, kHiddenEvents, 0, nullptr);
    bool ordinary = false;
    handle_hidden(hidden, count, ordinary);
}

}  // namespace loopfast
