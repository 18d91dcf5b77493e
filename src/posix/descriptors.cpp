// The calls that duplicate, close and reconfigure descriptors. Ours (hidden ones) do not exist for the
// program: what it does to their numbers fails with EBADF, and a loop that closes everything skips them.
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/hidden.h"
#include "base/own_calls.h"
#include "loopfast.h"
#include "posix/posix.h"
#include "posix/restrictions.h"
#include "wait/epoll_set.h"
#include "wait/steward.h"

namespace loopfast {

namespace {

/// A descriptor with an entry, or a hidden one.
[[gnu::noinline]] int close_ours(int fd) {
    if (is_hidden(fd))  // what is kept for a blocked call is in the table, too
        return returned<int>(-EBADF);
    const TableEntry entry = before_close(fd);
    const int result = real::close(fd);
    const int error = errno;
    after_close(fd, entry);
    errno = error;
    return result;
}

}  // namespace

int close_descriptor(int fd) {
    if (find(fd).kind() == EntryKind::kNone && !is_hidden(fd)) [[likely]] {
        if (had_streams())
            note_own_call();
        return real::close(fd);
    }
    return close_ours(fd);
}

LOOPFAST_PUBLIC int close(int fd) { return close_descriptor(fd); }

LOOPFAST_PUBLIC int close_range(unsigned first, unsigned last, int flags) noexcept {
    if (first > last)
        return returned<int>(-EINVAL);
    note_own_call();
    if ((flags & CLOSE_RANGE_UNSHARE) != 0) {
        stop_steward();
        before_tables_part();
    }
    const bool close_on_exec = (flags & CLOSE_RANGE_CLOEXEC) != 0;
    if (!close_on_exec && !in_borrowed_memory()) {
        for (int fd = next_entry(static_cast<int>(first) - 1); fd >= 0 && static_cast<unsigned>(fd) <= last;
             fd = next_entry(fd))
            close_descriptor(fd);
    }
    // The kernel closes what lies between our own descriptors, piece by piece.
    unsigned from = first;
    int result = 0;
    for (int hidden = next_hidden(static_cast<int>(first)); !close_on_exec && from <= last;
         hidden = next_hidden(hidden + 1)) {
        if (hidden < 0 || static_cast<unsigned>(hidden) > last)
            break;
        if (static_cast<unsigned>(hidden) > from)
            result = real::close_range(from, static_cast<unsigned>(hidden) - 1, flags);
        from = static_cast<unsigned>(hidden) + 1;
        if (result < 0)
            return result;
    }
    return from <= last ? real::close_range(from, last, flags) : result;
}

LOOPFAST_PUBLIC void closefrom(int lowest) noexcept {
    close_range(static_cast<unsigned>(lowest < 0 ? 0 : lowest), ~0U, 0);
}

namespace {

/// A standard descriptor is one that stdio reads and writes inside libc, where we do not see it.
void given_to_stdio(int fd) {
    if (fd > STDERR_FILENO)
        return;
    if (Stream* const stream = find_stream(fd))
        part_with(*stream, fd, Reason::kOption);
}

}  // namespace

LOOPFAST_PUBLIC int dup(int fd) noexcept {
    if (is_hidden(fd)) [[unlikely]]
        return returned<int>(-EBADF);
    const int copy = real::dup(fd);
    if (copy >= 0) {
        appeared(copy);
        duplicated(fd, copy);
        given_to_stdio(copy);
    }
    return copy;
}

namespace {

template <typename Dup> int dup_over(int fd, int onto, Dup dup) {
    if (is_hidden(fd) || is_hidden(onto)) [[unlikely]]
        return returned<int>(-EBADF);
    note_own_call();
    if (Stream* const stream = find_stream(fd); stream != nullptr && in_borrowed_memory()) [[unlikely]] {
        // The child of a vfork prepares what it is about to execute, on its parent's memory.
        part_with(*stream, fd, Reason::kOption);
        return dup();
    }
    const bool closes = find(onto).kind() != EntryKind::kNone && fd != onto;
    TableEntry entry;
    if (closes) {
        // Only if it will succeed may the old descriptor's stream be ended.
        if (sys::fcntl(fd, F_GETFD) < 0)
            return returned<int>(-EBADF);
        entry = before_close(onto);
    }
    const int result = dup();
    const int error = errno;
    if (closes)
        after_close(onto, entry);
    if (result >= 0 && fd != onto) {
        duplicated(fd, onto);
        given_to_stdio(onto);
    }
    errno = error;
    return result;
}

}  // namespace

LOOPFAST_PUBLIC int dup2(int fd, int onto) noexcept {
    return dup_over(fd, onto, [&] { return real::dup2(fd, onto); });
}

LOOPFAST_PUBLIC int dup3(int fd, int onto, int flags) noexcept {
    if (fd == onto || (flags & ~O_CLOEXEC) != 0)
        return real::dup3(fd, onto, flags);
    return dup_over(fd, onto, [&] { return real::dup3(fd, onto, flags); });
}

namespace {

int fcntl_with(int (*next)(int, int, ...), int fd, int command, void* argument) {
    if (is_hidden(fd)) [[unlikely]]
        return returned<int>(-EBADF);
    if (command == F_SETFL && (reinterpret_cast<uintptr_t>(argument) & O_ASYNC) != 0) [[unlikely]]
        if (Stream* const stream = find_stream(fd))
            leave_ring(*stream, fd);  // signals for bytes are the kernel's
    const int result = next(fd, command, argument);
    note_own_call();
    if (result < 0)
        return result;
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) {
        appeared(result);
        duplicated(fd, result);
        given_to_stdio(result);
    } else if (command == F_SETFL) {
        if (Stream* const stream = find_stream(fd))
            stream->shared->nonblocking.store((reinterpret_cast<uintptr_t>(argument) & O_NONBLOCK) != 0,
                                              std::memory_order_relaxed);
    }
    return result;
}

}  // namespace

LOOPFAST_PUBLIC int fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void* const argument = va_arg(list, void*);
    va_end(list);
    return fcntl_with(real::fcntl, fd, command, argument);
}

LOOPFAST_PUBLIC int fcntl64(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    void* const argument = va_arg(list, void*);
    va_end(list);
    return fcntl_with(real::fcntl64, fd, command, argument);
}

namespace {

int put_int(void* to, int value) {
    const iovec part{to, sizeof value};
    return Buffers(&part, 1).copy_out(&value, sizeof value) ? 0 : -EFAULT;
}

int ioctl_stream(Stream& stream, int fd, unsigned long request, void* argument) {
    switch (request) {
    case FIONREAD:
        if (stream.fused()) {
            const uint64_t waiting = bytes_waiting(stream, fd);
            return returned<int>(
                put_int(argument, waiting > INT32_MAX ? INT32_MAX : static_cast<int>(waiting)));
        }
        break;
    case SIOCOUTQ:
    case SIOCOUTQNSD: {
        int queued = 0;
        if (stream.fused() && real::ioctl(fd, request, &queued) == 0) {
            const uint64_t all = static_cast<uint64_t>(queued) + bytes_unsent(stream);
            return returned<int>(put_int(argument, all > INT32_MAX ? INT32_MAX : static_cast<int>(all)));
        }
        break;
    }
    case FIONBIO: {
        const int result = real::ioctl(fd, request, argument);
        if (result == 0)
            stream.shared->nonblocking.store(*static_cast<const int*>(argument) != 0,
                                             std::memory_order_relaxed);
        return result;
    }
    case SIOCATMARK:
        // The mark is in the kernel's queue, behind what the ring holds.
        if (stream.fused() && ring_is_due(stream) && stream.reader().available() != 0)
            return returned<int>(put_int(argument, 0));
        break;
    case FIOASYNC:
        leave_ring(stream, fd);
        break;
    default:
        break;
    }
    return real::ioctl(fd, request, argument);
}

}  // namespace

/// libc's own asks the kernel where we do not see it.
LOOPFAST_PUBLIC int sockatmark(int fd) noexcept {
    int mark = 0;
    return ::ioctl(fd, SIOCATMARK, &mark) < 0 ? -1 : mark;
}

LOOPFAST_PUBLIC int ioctl(int fd, unsigned long request, ...) noexcept {
    va_list list;
    va_start(list, request);
    void* const argument = va_arg(list, void*);
    va_end(list);
    // An int constant above 2^31 arrives sign-extended from some languages.
    if (static_cast<uint32_t>(request) == SIO_LOOPBACK_FAST_PATH) [[unlikely]] {
        if (sys::fcntl(fd, F_GETFD) < 0 || is_hidden(fd))
            return returned<int>(-EBADF);
        int on = 0;
        if (argument == nullptr || !readable(argument, sizeof on)) {
            // What is wrong with the descriptor comes before what is wrong with the argument.
            const int lane = loopfast_lane(fd);
            if (lane < 0 && errno != EFAULT)
                return -1;
            return returned<int>(-EFAULT);
        }
        memcpy(&on, argument, sizeof on);
        return loopfast_enable(fd, on);
    }
    Stream* const stream = find_stream(fd);
    if (stream == nullptr) [[likely]] {
        if (is_hidden(fd)) [[unlikely]]
            return returned<int>(-EBADF);
        return real::ioctl(fd, request, argument);
    }
    return ioctl_stream(*stream, fd, request, argument);
}

}  // namespace loopfast
