// What is ready in a set: the scan of hot streams, and what counts as an edge. See epoll_set.h.
#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/real.h"
#include "link/link.h"
#include "stream/counters.h"
#include "stream/order.h"
#include "stream/sleep.h"
#include "table/table.h"
#include "wait/epoll_events.h"
#include "wait/epoll_set.h"
#include "wait/sleeper.h"

namespace loopfast {

namespace {

/// A few streams are always scanned; of more, those without an event for this many scans cool down.
constexpr uint32_t kAlwaysHot = 8;
constexpr uint16_t kQuietScans = 1024;
/// The same while one of its directions is still the kernel's: then each scan asks the kernel, which costs a
/// system call. Many connections are opened, used a few times, and kept.
constexpr uint16_t kQuietScansInKernel = 16;
/// How far ahead of the scan the heads of rings are asked for. Each has been written by another processor,
/// and what is found in one decides where the program goes on: without being told, this processor would wait
/// for them one after the other.
constexpr uint32_t kAhead = 4;

constexpr uint32_t kAlwaysReported = EPOLLERR | EPOLLHUP;
constexpr uint32_t kEnded = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

/// What a peer that left the ring sends has its place in the kernel's order as well. That it left may not be
/// known yet: something is there, and it is not on the ring.
uint64_t order_on_both_lanes(Stream& stream, int fd) {
    const uint64_t order = order_of(stream);
    const bool on_ring = stream.reader().available() != 0;
    return on_ring && stream.shared->peer_left.load(std::memory_order_relaxed) == 0
               ? order
               : order + received_by_kernel(fd);
}

}  // namespace

uint32_t EpollSet::all_bits(int fd, Interest& interest, Stream& stream) {
    fd = interest.open(fd);
    // Poll bits and epoll bits are the same numbers.
    uint32_t ready;
    if (interest.registered && plain_readiness(stream, interest.events, ready))
        return ready;
    some_left_ = some_left_ || stream.state() == State::kKernel;
    return readiness(stream, fd, interest.registered ? Freshness::kCached : Freshness::kRecent);
}

uint32_t EpollSet::ready_bits(int fd, Interest& interest, Stream& stream) {
    return all_bits(fd, interest, stream) & (interest.events | kAlwaysReported);
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
    const uint64_t position = stream.reader().seen_head();
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

bool EpollSet::report_edge(int fd, Interest& interest, Stream& stream, uint32_t& bits) {
    // The end of our half is two pieces of news in the kernel, the call and its acknowledgement: one edge,
    // when both are there. Whoever sleeps is woken for what is taken here when this call returns (pass_on).
    if (interest.edge && half_shut(stream) && hidden_ >= 0) [[unlikely]] {
        take_hidden_events_locked();
        bits = ready_bits(fd, interest, stream);  // events make forgotten what was known of the end
    }
    if (!has_edge(interest, stream, bits))
        return false;
    // Before the look: what comes after it is news the next time. Harmless: only compared.
    const uint64_t position = stream.reader().seen_head();
    const uint32_t full = stream.shared->full_count.load(std::memory_order_relaxed);
    const uint32_t now_ended = end_of(interest, stream);
    uint64_t in_kernel = interest.seen_in_kernel;
    const uint64_t by_kernel = stream.shared->kernel_in.load(std::memory_order_relaxed);
    const bool asked = !stream.in_in_ring() || stream.shared->peer_left.load(std::memory_order_relaxed) != 0;
    if (asked) [[unlikely]]
        in_kernel = received_by_kernel(fd);
    else if (by_kernel > in_kernel) [[unlikely]]
        in_kernel = by_kernel;
    // The caller's look was made before: what came in between would be taken for told here, though not in
    // `bits`. Bytes were told of as room to who asked for both, and never as bytes.
    const uint32_t all = all_bits(fd, interest, stream);
    bits = all & (interest.events | kAlwaysReported);
    if (bits == 0 || (some_left_ && stream.state() == State::kKernel)) [[unlikely]]
        return false;
    // An end that this look found is told as well. The kernel counts it as a byte, and none comes after it.
    if (asked && (all & kEnded & ~now_ended) != 0) [[unlikely]]
        in_kernel = received_by_kernel(fd);
    interest.edge = interest.edge_due = false;
    interest.seen_position = position;
    interest.seen_in_kernel = in_kernel;
    interest.seen_ended = now_ended | (all & kEnded);
    if ((bits & EPOLLOUT) != 0)
        interest.seen_full = full;
    return true;
}

/// The kernel looks at an entry where it has an event to report, and once more after that, if it is
/// level-triggered: a poll, see polled_without_room().
void EpollSet::polled(const Interest& interest, Stream& stream, uint32_t bits) {
    if ((interest.events & EPOLLOUT) != 0 ? (bits & EPOLLOUT) != 0
                                          : stream.set_entries.load(std::memory_order_relaxed) < 2)
        return;  // there is room; or nobody but those who ask for bytes
    if (!has_room(stream)) [[unlikely]]
        polled_without_room(stream);
}

void EpollSet::tell(Interest& interest, Stream& stream, uint32_t bits, epoll_event& event) {
    interest.quiet = 0;
    interest.told = round_;
    interest.listed = (interest.events & EPOLLET) == 0;
    polled(interest, stream, bits);
    if ((bits & EPOLLIN) != 0)
        stream.writer().expect_write();  // of the answer
    if ((interest.events & EPOLLONESHOT) != 0)
        interest.disabled = true;
    event.events = bits;
    event.data.u64 = interest.data;
}

/// What H told of goes into the report in H's order, which is that of the calls by which it came: the end of
/// one connection, the bell of another, something ordinary. What a scan finds beside that comes after it.
int EpollSet::tell_in_order(int set_fd, const epoll_event* hidden, int count, bool ordinary,
                            epoll_event* events, int capacity) {
    int found = 0;
    const auto tell_of_ordinary = [&] {
        ordinary = false;
        ordinary_first_ = ordinary_first_ || found >= capacity;
        const int more = found < capacity ? take_ordinary(set_fd, events + found, capacity - found) : 0;
        ordinary_lively_ = more > 0 || ordinary_first_;
        found += more;
    };
    for (int i = 0; i < count; ++i) {
        const uint64_t data = hidden[i].data.u64;
        if (data == kOrdinaryEvent && ordinary)
            tell_of_ordinary();
        if (data == kOrdinaryEvent || data == kKickEvent || found >= capacity)
            continue;
        const int fd = static_cast<int>(data >> 1);
        Interest* const interest = interests_.find(fd);
        if (interest == nullptr || !interest->managed || interest->hot_index == 0 || interest->disabled ||
            interest->told == round_)
            continue;
        Stream& stream = stream_at(interest->slot);
        if (stream.generation != interest->generation || !stream.segment)
            continue;
        // A link that was hung up says when the peer left. What it has sent since has a place of its own.
        if ((data & 1) == 0 && stream.shared->peer_left.load(std::memory_order_relaxed) != 0)
            continue;
        // What was said before these bytes is in H's list before them: the kernel need not be asked, nor is
        // it known whether the order has changed since (seen_order stays).
        uint32_t bits = ready_bits(fd, *interest, stream);
        if (bits == 0 || (some_left_ && stream.state() == State::kKernel))
            continue;
        if ((interest->events & EPOLLET) == 0 || report_edge(interest->open(fd), *interest, stream, bits))
            tell(*interest, stream, bits, events[found++]);
    }
    if (ordinary)
        tell_of_ordinary();
    return found;
}

/// In the middle of a scan: bytes on a ring follow what was said over the kernel lane.
/// @return how many events there are of that.
int EpollSet::take_what_came_before(epoll_event* events, int capacity) {
    bool of_streams = false;
    asked_ = true;  // what is level-triggered would be told of twice
    const int found = look_at_kernel(descriptor, events, capacity, nullptr, of_streams);
    return found > 0 ? found : 0;
}

int EpollSet::scan(epoll_event* events, int capacity, bool again, bool asked) {
    round_ += again ? 0 : 1;
    asked_ = asked;
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
        if (place + kAhead < hot_count_) {
            const Stream& later = stream_at(interests_.find(hot_[place + kAhead])->slot);
            if (later.segment)
                later.reader().expect_head();
        }
        if (stream.generation != interest.generation || !stream.segment || interest.disabled)
            continue;
        if (interest.told == round_)
            continue;
        uint32_t bits = ready_bits(fd, interest, stream);
        // The kernel's set reports it, once it is there again; who asked it now would not ask again then.
        if (some_left_ && stream.state() == State::kKernel) [[unlikely]]
            continue;
        const uint64_t order = (bits & EPOLLIN) != 0 ? order_on_both_lanes(stream, interest.open(fd)) : 0;
        if ((bits & EPOLLIN) != 0 && order != interest.seen_order) [[unlikely]] {
            if (again && asked)
                continue;  // it came during this call, after that look: its turn is the next time
            interest.seen_order = order;
            if (!asked_) {
                const int before = take_what_came_before(events + found, capacity - found);
                // In front, as ends are below.
                std::rotate(events + ended, events + found, events + found + before);
                ended += before;
                found += before;
                bits = ready_bits(fd, interest, stream);  // see report_edge
            }
            if (interest.told == round_)
                continue;  // that told of it
            if (found >= capacity) {
                --place;  // it is this one's turn the next time
                break;
            }
        }
        if (some_left_ && stream.state() == State::kKernel) [[unlikely]]
            continue;  // a relative has taken it off the ring meanwhile
        // Of a few streams also where nothing is there yet: the bytes then come while the head does.
        if (count <= kAhead || (bits & EPOLLIN) != 0)
            stream.reader().expect_read();
        if (bits == 0 ||
            ((interest.events & EPOLLET) != 0 && !report_edge(interest.open(fd), interest, stream, bits))) {
            if (interest.listed) {
                interest.listed = false;
                polled(interest, stream, bits);
            }
            // The last one took its place in the list, and is looked at now unless it has been: nothing may
            // be reported twice in one call, or missed before a sleep.
            const bool in_ring = stream.in_in_ring() && stream.out_in_ring();
            if (++interest.quiet >= (in_ring ? kQuietScans : kQuietScansInKernel) && count > kAlwaysHot &&
                try_cooling(fd, interest, stream) && !(wrapped && hot_count_ >= start))
                --place;
            continue;
        }
        tell(interest, stream, bits, events[found]);
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
    if (!interest.registered || is_looked_at_again(stream))
        return false;
    loopfast::arm(stream, stream.in().sleep.consumer, kAlwaysRing);
    if ((interest.events & EPOLLOUT) != 0)
        loopfast::arm(stream, stream.out().sleep.producer, kAlwaysRing);
    interest.quiet = 0;
    const bool edge_triggered = (interest.events & EPOLLET) != 0;
    const uint64_t position = stream.reader().seen_head();
    const uint32_t bits = ready_bits(fd, interest, stream);
    if (bits != 0 && (!edge_triggered || has_edge(interest, stream, bits)))
        return false;
    if (edge_triggered && (position != interest.seen_position || interest.edge))
        return false;
    make_cold(interest);
    return true;
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
        return !had_room && (!stream.out_in_ring() || half_shut(stream) || goes_on_in_kernel(stream, fd));
    // With the ring in use there is news only at the end, and when the peer goes on over the kernel.
    if (stream.in_in_ring() && !goes_on_in_kernel(stream, fd))
        return false;
    const bool only_bytes = (news & ~static_cast<uint32_t>(EPOLLIN | EPOLLRDNORM | EPOLLOUT)) == 0;
    if (!only_bytes)
        return true;
    const uint64_t received = received_by_kernel(fd);
    return received == 0 || received != interest.seen_in_kernel;
}

}  // namespace

bool EpollSet::handle_hidden(const epoll_event* events, int count, bool& ordinary) {
    bool of_streams = false;
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
        of_streams = true;
        if ((data & 1) != 0) {
            kernel_event(stream);
            if (is_edge(interest->open(fd), *interest, stream,
                        events[i].events & (interest->events | kAlwaysReported)))
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
    return of_streams;
}

void EpollSet::edge(Stream& stream, uint32_t events, SetHooks::Edge when) {
    Hold hold(lock);
    bool found = false;
    interests_.each([&](int number, Interest& interest) {
        if (!interest.managed || interest.dormant || interest.slot != stream.slot ||
            interest.generation != stream.generation || (events != 0 && (interest.events & events) == 0))
            return;
        if (when != SetHooks::kIfStillDue)
            interest.edge_due = when == SetHooks::kDue;
        else if (!interest.edge_due)
            return;
        if (when == SetHooks::kDue)
            return;
        // The kernel's own word of the same thing is not to be one more edge. Whoever sleeps gets our kick
        // for what is taken here.
        if (!found && hidden_ >= 0)
            take_hidden_events_locked();
        interest.edge = found = true;
        make_hot(number, interest);
    });
    if (found)
        kick();
}

}  // namespace loopfast
