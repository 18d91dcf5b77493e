// How entries move between the kernel's set and ours: a stream is about to be fused, leaves the ring, is
// closed, goes on in a child. See epoll_set.h.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "base/hidden.h"
#include "base/ready.h"
#include "base/real.h"
#include "stream/counters.h"
#include "table/table.h"
#include "wait/epoll_set.h"

namespace loopfast {

void EpollSet::divert(Stream& stream, int fd, int other) {
    Hold hold(lock);
    interests_.each([&](int number, Interest& interest) {
        if (interest.stream && interest.slot == stream.slot && interest.generation == stream.generation &&
            (number == fd || interest.via == fd + 1))
            interest.via = other + 1;
    });
}

bool EpollSet::claim(Stream& stream, int fd) {
    (void)fd;
    Hold hold(lock);
    bool good = true;
    interests_.each([&](int number, Interest& interest) {
        // An entry made before the socket was known as a stream is recognised by its number.
        const bool ours = interest.stream
                              ? interest.slot == stream.slot && interest.generation == stream.generation
                              : find_stream(number) == &stream;
        if (!ours || !good)
            return;
        if (interest.managed) {
            // It may be owed to the kernel's set since an earlier attempt: then it simply stays.
            if (interest.owed)
                interest.edge = true;
            interest.owed = false;
            return;
        }
        bool fired = false;
        if ((interest.events & EPOLLONESHOT) != 0) {
            const long left = interest_in_kernel(descriptor, number);
            if (left < 0) {
                good = false;
                return;
            }
            // Whatever was asked for, these two are there as long as it may fire.
            fired = (static_cast<uint32_t>(left) & (EPOLLERR | EPOLLHUP)) == 0;
        }
        if (nested_ || !ensure_hidden(descriptor) || !make_room() ||
            sys::epoll_ctl(descriptor, EPOLL_CTL_DEL, number, nullptr) < 0) {
            good = false;
            return;
        }
        if (!interest.stream) {
            interest.stream = true;
            interest.slot = stream.slot;
            interest.generation = stream.generation;
            stream.set_entries.fetch_add(1, std::memory_order_relaxed);
        }
        interest.managed = true;
        interest.disabled = fired;
        // An edge that the kernel's set has reported already is not reported again, but what lies unread
        // may have come since. Counted before that is looked at: what comes in between is news.
        interest.seen_in_kernel = received_by_kernel(number);
        interest.edge = interest.entered == kernel_waits_ ||
                        ((interest.events & EPOLLIN) != 0 && (ready_now(number, POLLIN) & POLLIN) != 0);
        // Full now, or found so before: room will be, or is, an edge that the kernel's set has not told of
        // yet, since the peer may have read meanwhile. (Or it has: once too often is harmless, never is a
        // program that waits for ever.) From here on each send that finds none counts (report_edge).
        const uint32_t found_full = stream.shared->full_count.load(std::memory_order_relaxed);
        const bool full = found_full != 0 || (ready_now(number, POLLOUT) & POLLOUT) == 0;
        interest.seen_full = found_full - (full ? 1 : 0);
        interest.seen_ended = 0;  // as it is with room
        change_managed(1);
        unregistered_ = true;
        make_hot(number, interest);
        kick();
    });
    return good;
}

bool EpollSet::give_to_kernel(int fd, Interest& interest) {
    epoll_event event{interest.disabled ? 0U : interest.events, {}};
    event.data.u64 = interest.data;
    int result;
    if (interest.via == 0 || find_stream(fd) == &stream_at(interest.slot)) {
        result = sys::epoll_ctl(descriptor, EPOLL_CTL_ADD, fd, &event);
    } else {
        // Its own descriptor was closed: an entry under a number that nobody has, as it would be in the
        // kernel.
        const int copy = sys::fcntl(interest.via - 1, F_DUPFD_CLOEXEC, 0);
        result = copy < 0 ? copy : sys::epoll_ctl(descriptor, EPOLL_CTL_ADD, copy, &event);
        if (copy >= 0)
            sys::close(copy);
    }
    if (result == -ENOMEM || result == -ENOSPC || result == -EMFILE)
        return false;
    interest.managed = interest.owed = false;
    make_cold(interest);
    change_managed(-1);
    interest.entered = kernel_waits_;
    ordinary_lively_ = true;
    return true;
}

void EpollSet::owe(int fd, Interest& interest) {
    interest.owed = owing_ = true;
    make_hot(fd, interest);
}

void EpollSet::unclaim(Stream& stream) {
    Hold hold(lock);
    interests_.each([&](int number, Interest& interest) {
        if (interest.managed && !interest.dormant && interest.slot == stream.slot &&
            interest.generation == stream.generation && !give_to_kernel(number, interest)) {
            owe(number, interest);
            kick();  // who sleeps comes out, and tries again until it is there
        }
    });
}

void EpollSet::give_left_to_kernel() {
    some_left_ = owing_ = false;
    interests_.each([&](int number, Interest& interest) {
        if (!interest.managed || interest.dormant)
            return;
        Stream& stream = stream_at(interest.slot);
        if (stream.generation != interest.generation || !(interest.owed || stream.state() == State::kKernel))
            return;
        if (give_to_kernel(number, interest))
            unregister(number, interest, stream);
        else
            owe(number, interest);
    });
}

void EpollSet::drop(Stream& stream) {
    Hold hold(lock);
    interests_.each([&](int number, Interest& interest) {
        if (interest.stream && interest.slot == stream.slot && interest.generation == stream.generation)
            forget(number, interest);
    });
    // The link leaves the set with its events: one that was meant to wake a sleeper goes with it.
    kick();
}

void EpollSet::forked() {
    // The child shares the kernel's set with its parent, as without us; but two processes in one hidden set
    // would take each other's edges.
    lock.reset();
    close_hidden(hidden_);
    close_hidden(kick_);
    hidden_ = kick_ = -1;
    sleepers_.store(0, std::memory_order_relaxed);
    inside_.store(0, std::memory_order_relaxed);
    kernel_sleepers_.store(0, std::memory_order_relaxed);
    calling_out_ = calling_uncounted_ = tells_edges_ = false;
    stop_telling();
    calls_out_.store((calls_out_.load(std::memory_order_relaxed) + 1) & ~1U, std::memory_order_relaxed);
    early_sleepers_ = false;
    interests_.each([&](int number, Interest& interest) {
        interest.registered = false;
        if (interest.managed && !interest.dormant) {
            unregistered_ = true;
            make_hot(number, interest);
        }
    });
}

void EpollSet::forget_kept() {
    const int kept = kept_.exchange(-1, std::memory_order_relaxed);
    if (kept >= 0)
        close_kept(kept);  // the parent's threads are not here
}

void EpollSet::closing(int fd) {
    // seq_cst: Dekker with wait(), which counts itself in and then looks for the descriptor's entry.
    const TableEntry entry = find(fd);
    set_entry(fd, {});
    std::atomic_thread_fence(std::memory_order_seq_cst);
    // Who gives an entry back to the kernel may come without a descriptor of the set, and the number may mean
    // another set by then.
    if (descriptor == fd) {
        Hold hold(lock);
        for (int other = next_entry(-1); other >= 0 && descriptor == fd; other = next_entry(other))
            if (find(other).packed() == entry.packed())
                descriptor = other;
    }
    if (inside_.load(std::memory_order_seq_cst) == 0 || kept_.load(std::memory_order_relaxed) >= 0)
        return;
    const int kept = hide_copy(fd);
    if (kept < 0)
        return;
    set_entry(kept, entry);
    kept_.store(kept, std::memory_order_seq_cst);
    if (descriptor == fd)
        descriptor = kept;
    int mine = kept;
    if (inside_.load(std::memory_order_seq_cst) == 0 &&
        kept_.compare_exchange_strong(mine, -1, std::memory_order_seq_cst))
        close_kept(kept);
}

}  // namespace loopfast
