// See blocking.h.
#include "wait/blocking.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "wait/sleeper.h"

namespace loopfast {

namespace {

bool does_not_block(const Stream& stream, int flags) {
    return (flags & MSG_DONTWAIT) != 0 || stream.shared->nonblocking.load(std::memory_order_relaxed) != 0;
}

/// After a wait was interrupted: does the call go on? A call with a timeout never does.
bool restarts(int64_t timeout) {
    return timeout == kForever && interrupting_handlers.load(std::memory_order_relaxed) == 0;
}

/// How many bytes a receive waits for before it returns.
size_t target_of(const Stream& stream, size_t size, int flags) {
    if ((flags & MSG_WAITALL) != 0)
        return size;
    const size_t low_water = stream.shared->low_water.load(std::memory_order_relaxed);
    return low_water < 1 ? (size < 1 ? size : 1) : (low_water < size ? low_water : size);
}

}  // namespace

long receive(Stream& stream, int fd, Buffers* to, size_t size, int flags) {
    const bool peek = (flags & MSG_PEEK) != 0;
    Buffers rest = to != nullptr ? *to : Buffers(nullptr, 0);
    Buffers* const target = to != nullptr ? &rest : nullptr;
    long result = receive_some(stream, fd, target, size, flags);
    if (result == static_cast<long>(size) || (result < 0 && result != -EAGAIN)) [[likely]]
        return result;
    if (does_not_block(stream, flags))
        return result;
    const size_t wanted = target_of(stream, size, flags);
    const int64_t timeout = stream.shared->receive_timeout.load(std::memory_order_relaxed);
    int64_t deadline = -1;
    long total = 0;
    for (;;) {
        if (result == 0)
            return total;
        if (result > 0) {
            total = peek ? result : total + result;
            if (static_cast<size_t>(total) == size)
                return total;
            if (!peek)
                rest.skip(static_cast<size_t>(result));
            if (static_cast<size_t>(total) >= wanted)
                return total;
        } else if (result != -EAGAIN) {
            return total > 0 ? total : result;
        }
        if (deadline < 0)
            deadline = deadline_after(timeout);
        const uint64_t seen = peek ? static_cast<uint64_t>(total) : 0;
        switch (wait_for(stream, fd, Want::kReceive, deadline, seen)) {
        case WaitResult::kReady:
            break;
        case WaitResult::kTimeout:
            return total > 0 ? total : -EAGAIN;
        case WaitResult::kInterrupted:
            if (total > 0)
                return total;
            if (!restarts(timeout))
                return -EINTR;
            break;
        }
        result = receive_some(stream, fd, target, peek ? size : size - static_cast<size_t>(total), flags);
        if (peek && result == total && total > 0 &&
            (kernel_readiness(stream, fd, Freshness::kRecent) & (POLLRDHUP | POLLHUP | POLLERR)) != 0)
            return total;  // no more will come
    }
}

long send(Stream& stream, int fd, const Buffers& from, size_t size, int flags) {
    long result = send_some(stream, fd, from, size, flags);
    if (result == static_cast<long>(size) || (result < 0 && result != -EAGAIN)) [[likely]]
        return result;
    const bool nonblocking = does_not_block(stream, flags);
    if (result < 0 && nonblocking)
        return result;
    const int64_t timeout = stream.shared->send_timeout.load(std::memory_order_relaxed);
    int64_t deadline = -1;
    Buffers rest = from;
    long total = 0;
    for (;;) {
        if (result >= 0) {
            total += result;
            if (static_cast<size_t>(total) >= size)
                return total;
            rest.skip(static_cast<size_t>(result));
        } else if (result != -EAGAIN) {
            return total > 0 ? total : result;
        } else if (nonblocking) {
            return total > 0 ? total : -EAGAIN;
        } else {
            if (deadline < 0)
                deadline = deadline_after(timeout);
            switch (wait_for(stream, fd, Want::kSend, deadline)) {
            case WaitResult::kReady:
                break;
            case WaitResult::kTimeout:
                return total > 0 ? total : -EAGAIN;
            case WaitResult::kInterrupted:
                if (total > 0)
                    return total;
                if (!restarts(timeout))
                    return -EINTR;
                break;
            }
        }
        result = send_some(stream, fd, rest, size - static_cast<size_t>(total),
                           total > 0 ? flags | kContinued : flags);
    }
}

}  // namespace loopfast
