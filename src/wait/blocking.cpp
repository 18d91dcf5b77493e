// See blocking.h.
#include "wait/blocking.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "table/table.h"
#include "wait/caller.h"
#include "wait/chance.h"
#include "wait/sleeper.h"

namespace loopfast {

namespace {

bool does_not_block(const Stream& stream, int flags) {
    return (flags & MSG_DONTWAIT) != 0 || stream.shared->nonblocking.load(std::memory_order_relaxed) != 0;
}

/// A call that does not wait is one as well.
void cancellation_point() {
    if (!__libc_single_threaded)
        pthread_testcancel();
}

/// After a handler ran: does the call end? One with a timeout always does.
bool ends(WaitResult ended, int64_t timeout) {
    return ended == WaitResult::kInterrupted || timeout != kForever;
}

/// A handler ran, and the call goes on: it does what a new one would, since the handler may have changed what
/// that finds. Another thread's close, in contrast, ends no call that is under way. @return 0: it waits on;
/// -EAGAIN: it makes one attempt, without waiting; -ERESTART: the descriptor is another's, or nobody's.
long after_handler(const Stream& stream, int fd, int flags) {
    // A hidden number is a step's of a call whose own was closed.
    if (find_stream(fd) != &stream || is_hidden(fd))
        return -ERESTART;
    return does_not_block(stream, flags) ? -EAGAIN : 0;
}

/// A wait that a handler's close ended is over because of that handler, whatever it found.
WaitResult as_ended(WaitResult ended, const Caller& call, const HandlersSince& handlers) {
    if (!call.gone()) [[likely]]
        return ended;
    return handlers.interrupting() ? WaitResult::kInterrupted : WaitResult::kRestarted;
}

/// How many bytes a receive waits for before it returns.
size_t target_of(const Stream& stream, size_t size, int flags) {
    if ((flags & MSG_WAITALL) != 0)
        return size;
    const size_t low_water = stream.shared->low_water.load(std::memory_order_relaxed);
    return low_water < 1 ? (size < 1 ? size : 1) : (low_water < size ? low_water : size);
}

}  // namespace

namespace {

/// An attempt of a call that has waited.
long receive_again(Stream& stream, const Caller& call, Buffers* to, size_t size, int flags) {
    // What the ring has is taken without asking the kernel for anything by the number.
    if (stream.in_in_ring() && stream.reader().available() != 0 &&
        !stream.link_down.load(std::memory_order_relaxed)) [[likely]]
        return receive_some(stream, call.fd(), to, size, flags);
    const Reach reach(call);
    return receive_some(stream, reach.fd(), to, size, flags);
}

long send_again(Stream& stream, const Caller& call, const Buffers& from, size_t size, int flags) {
    const Reach reach(call);
    return send_some(stream, reach.fd(), from, size, flags);
}

/// A receive of no bytes waits once, and whatever ends the wait, it returns none: the kernel leaves an error
/// to the next call.
long wait_for_nothing(Stream& stream, const Caller& call, int64_t deadline, const HandlersSince& handlers) {
    constexpr uint32_t kAnything = POLLIN | POLLRDHUP | POLLHUP | POLLERR;
    while (wait_for(stream, call.fd(), Want::kReceive, deadline, handlers) == WaitResult::kReady &&
           !call.gone() && (readiness(stream, call.fd(), Freshness::kRecent) & kAnything) == 0) {
    }
    return 0;
}

}  // namespace

namespace {

/// The rest of a receive into `target`, or into nothing, after its first attempt gave `result`. `fd` is the
/// number that the program gave.
long receive_rest(Stream& stream, int fd, const Caller& call, Buffers* target, size_t size, int flags,
                  long result, HandlersSince& handlers) {
    const bool peek = (flags & MSG_PEEK) != 0;
    size_t wanted = target_of(stream, size, flags);
    int64_t timeout = stream.shared->receive_timeout.load(std::memory_order_relaxed);
    int64_t deadline = -1;
    long total = 0;
    for (;;) {
        if (result == 0)
            return total;
        if (result > 0) {
            if (peek && result == total && deadline >= 0 && time_left(deadline) == 0)
                return total;  // nothing came, whatever woke us
            total = peek ? result : total + result;
            if (static_cast<size_t>(total) == size)
                return total;
            if (!peek && target != nullptr)
                target->skip(static_cast<size_t>(result));
            if (static_cast<size_t>(total) >= wanted)
                return total;
        } else if (result != -EAGAIN) {
            return total > 0 ? total : result;
        }
        if (deadline < 0)
            deadline = deadline_after(timeout);
        if (size == 0)
            return wait_for_nothing(stream, call, deadline, handlers);
        const uint64_t seen = peek ? static_cast<uint64_t>(total) : 0;
        WaitResult ended = wait_for(stream, call.fd(), Want::kReceive, deadline, handlers, seen);
        // SO_RCVLOWAT as it is now says when the kernel wakes who waits, whatever it was when the call began;
        // but however the wait ends, what is there is taken.
        const bool marked = stream.shared->low_water.load(std::memory_order_relaxed) > 1;
        while (marked && ended == WaitResult::kReady && !call.gone() &&
               !is_ready(stream, call.fd(), Want::kReceive, seen))
            ended = wait_for(stream, call.fd(), Want::kReceive, deadline, handlers, seen);
        ended = as_ended(ended, call, handlers);
        if (ended != WaitResult::kReady && marked && !peek && !call.gone()) {
            result = receive_again(stream, call, target, size - static_cast<size_t>(total), flags);
            if (result >= 0)
                return total + result;
            if (result != -EAGAIN)
                return total > 0 ? total : result;
        }
        switch (ended) {
        case WaitResult::kReady:
            break;
        case WaitResult::kTimeout:
            return total > 0 ? total : -EAGAIN;
        case WaitResult::kInterrupted:
        case WaitResult::kRestarted:
            if (total > 0)
                return total;  // whatever the handler asked for: there is something to tell
            if (ends(ended, timeout))
                return -EINTR;
            handlers = {};
            if (const long now = after_handler(stream, fd, flags); now < 0)
                return now == -EAGAIN ? receive_again(stream, call, target, size, flags) : now;
            wanted = target_of(stream, size, flags);
            timeout = stream.shared->receive_timeout.load(std::memory_order_relaxed);
            deadline = -1;
            break;
        }
        // An error is for the call after the one that has bytes.
        if (total > 0 && !peek && (kernel_readiness(stream, call.fd(), Freshness::kRecent) & POLLERR) != 0 &&
            bytes_waiting(stream, call.fd()) == 0)
            return total;
        result = receive_again(stream, call, target, peek ? size : size - static_cast<size_t>(total), flags);
        if (peek && result == total && total > 0 &&
            (kernel_readiness(stream, call.fd(), Freshness::kRecent) & (POLLRDHUP | POLLHUP | POLLERR)) != 0)
            return total;  // no more will come
    }
}

/// Its first attempt was all, or the call does not wait.
bool was_all(const Stream& stream, size_t size, int flags, long result) {
    return result == static_cast<long>(size) || (result < 0 && result != -EAGAIN) ||
           does_not_block(stream, flags);
}

}  // namespace

long receive(Stream& stream, int fd, Buffers* to, size_t size, int flags) {
    cancellation_point();
    const Occasions occasions(stream, fd);
    HandlersSince handlers;
    Buffers rest = to != nullptr ? *to : Buffers(nullptr, 0);
    Buffers* const target = to != nullptr ? &rest : nullptr;
    const long result = receive_some(stream, fd, target, size, flags);
    if (was_all(stream, size, flags, result)) [[likely]]
        return result;
    const Caller call(stream, fd);
    if (!call.alive())
        return result > 0 ? result : -EBADF;
    return receive_rest(stream, fd, call, target, size, flags, result, handlers);
}

long receive(Stream& stream, const Caller& call, Buffers* to, size_t size, int flags) {
    cancellation_point();
    const int fd = call.fd();
    const Occasions occasions(stream, fd);
    HandlersSince handlers;
    Buffers rest = to != nullptr ? *to : Buffers(nullptr, 0);
    Buffers* const target = to != nullptr ? &rest : nullptr;
    const long result = receive_again(stream, call, target, size, flags);
    return was_all(stream, size, flags, result)
               ? result
               : receive_rest(stream, fd, call, target, size, flags, result, handlers);
}

namespace {

/// The rest of a send, after its first attempt gave `result`. A call that waits for room has a Caller.
long send_rest(Stream& stream, int fd, const Buffers& from, size_t size, int flags, long result,
               const Caller* call, HandlersSince& handlers) {
    const bool waits = !does_not_block(stream, flags);
    int64_t timeout = stream.shared->send_timeout.load(std::memory_order_relaxed);
    int64_t deadline = -1;
    Buffers rest = from;
    long total = 0;
    for (;;) {
        if (result >= 0) {
            total += result;
            if (static_cast<size_t>(total) >= size)
                return total;
            rest.skip(static_cast<size_t>(result));
        } else if (result != -EAGAIN || !waits || call == nullptr) {
            return total > 0 ? total : result;
        } else {
            if (deadline < 0)
                deadline = deadline_after(timeout);
            const WaitResult ended =
                as_ended(wait_for(stream, call->fd(), Want::kSend, deadline, handlers), *call, handlers);
            switch (ended) {
            case WaitResult::kReady:
                break;
            case WaitResult::kTimeout:
                return total > 0 ? total : -EAGAIN;
            case WaitResult::kInterrupted:
            case WaitResult::kRestarted:
                if (total > 0)
                    return total;
                if (ends(ended, timeout))
                    return -EINTR;
                handlers = {};
                if (const long now = after_handler(stream, fd, flags); now < 0)
                    return now == -EAGAIN ? send_again(stream, *call, rest, size, flags) : now;
                timeout = stream.shared->send_timeout.load(std::memory_order_relaxed);
                deadline = -1;
                break;
            }
        }
        const size_t left = size - static_cast<size_t>(total);
        const int how = total > 0 ? flags | kContinued : flags;
        result = call != nullptr ? send_again(stream, *call, rest, left, how)
                                 : send_some(stream, fd, rest, left, how);
    }
}

}  // namespace

long send(Stream& stream, int fd, const Buffers& from, size_t size, int flags) {
    cancellation_point();
    const Occasions occasions(stream, fd);
    HandlersSince handlers;
    const long result = send_some(stream, fd, from, size, flags);
    if (result == static_cast<long>(size) || (result < 0 && result != -EAGAIN)) [[likely]]
        return result;
    if (does_not_block(stream, flags))
        return result < 0 ? result : send_rest(stream, fd, from, size, flags, result, nullptr, handlers);
    const Caller call(stream, fd);
    if (!call.alive())
        return result > 0 ? result : -EBADF;
    return send_rest(stream, fd, from, size, flags, result, &call, handlers);
}

long send(Stream& stream, const Caller& call, const Buffers& from, size_t size, int flags) {
    cancellation_point();
    const int fd = call.fd();
    const Occasions occasions(stream, fd);
    HandlersSince handlers;
    const long result = send_again(stream, call, from, size, flags);
    return result == static_cast<long>(size) || (result < 0 && result != -EAGAIN)
               ? result
               : send_rest(stream, fd, from, size, flags, result, &call, handlers);
}

long await_room(Stream& stream, const Caller& call) {
    if (does_not_block(stream, 0))
        return -EAGAIN;
    const int fd = call.fd();
    HandlersSince handlers;
    int64_t timeout = stream.shared->send_timeout.load(std::memory_order_relaxed);
    int64_t deadline = deadline_after(timeout);
    for (;;) {
        const WaitResult ended =
            as_ended(wait_for(stream, call.fd(), Want::kSend, deadline, handlers), call, handlers);
        switch (ended) {
        case WaitResult::kReady:
            return 0;
        case WaitResult::kTimeout:
            return -EAGAIN;
        case WaitResult::kInterrupted:
        case WaitResult::kRestarted:
            if (ends(ended, timeout))
                return -EINTR;
            handlers = {};
            if (const long now = after_handler(stream, fd, 0); now < 0)
                return now;
            timeout = stream.shared->send_timeout.load(std::memory_order_relaxed);
            deadline = deadline_after(timeout);
            break;
        }
    }
}

}  // namespace loopfast
