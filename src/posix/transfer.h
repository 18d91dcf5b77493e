// What the calls that move bytes have in common (transfer.cpp, messages.cpp): the shape of their wrappers,
// the scopes within which the kernel's bytes are counted, and what is to be said of vectors and names.
//
// On a stream that was never fused a call goes to the real function as it is, inside a scope that counts its
// bytes; those counts are what the hand-over is checked against.
#pragma once

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "posix/posix.h"
#include "wait/blocking.h"

namespace loopfast {

/// The most one call moves, as in the kernel.
constexpr size_t kMostBytes = 0x7ffff000;

/// What the call on a closed number is refused with. One that a handler makes the kernel begin anew may find
/// there, for some microseconds, a file of ours: a look at filters, a handshake.
int error_of_no_socket(int fd);

template <typename Call> ssize_t kernel_receive(Stream& stream, int fd, int flags, bool& moved, Call call) {
    moved = false;
    if (stream.state() == State::kKernel)
        return call();
    ssize_t result;
    int error;
    {
        KernelReceive scope(stream);
        moved = !scope.allowed();
        if (moved)
            return -1;
        result = call();
        error = errno;
        scope.count(result, flags);
    }
    if (result < 0 && error == ENOTSOCK) [[unlikely]]
        error = error_of_no_socket(fd);  // outside of the scope, which a hand-over waits for
    after_kernel_call(stream, fd);
    errno = error;
    return result;
}

template <typename Call> ssize_t kernel_send(Stream& stream, int fd, size_t size, bool& moved, Call call) {
    moved = false;
    if (stream.state() == State::kKernel) {
        note_kernel_lane_call();
        return call();
    }
    before_kernel_send(stream, fd, size);
    ssize_t result;
    int error;
    {
        KernelSend scope(stream);
        moved = !scope.allowed() || stream.fused();
        if (moved)
            return -1;
        result = call();
        error = errno;
        scope.count(result, size);
    }
    if (result < 0 && error == ENOTSOCK) [[unlikely]]
        error = error_of_no_socket(fd);  // outside of the scope, which a hand-over waits for
    after_kernel_call(stream, fd);
    errno = error;
    return result;
}

/// Sum of the parts, at most what one call moves. As the kernel has it: -EFAULT for a vector that cannot be
/// read or a part that runs out of the address space, -EINVAL for a negative length, wherever it stands.
inline long total_of(const iovec* parts, size_t count) {
    if (!readable(parts, count * sizeof *parts))
        return -EFAULT;
    size_t total = 0;
    bool beyond = false;
    for (size_t i = 0; i < count; ++i) {
        const size_t size = parts[i].iov_len;
        if (size > SSIZE_MAX)
            return -EINVAL;
        beyond = beyond || reinterpret_cast<uintptr_t>(parts[i].iov_base) + size > SSIZE_MAX;
        total += size < kMostBytes - total ? size : kMostBytes - total;
    }
    return beyond ? -EFAULT : static_cast<long>(total);
}

/// A count that the kernel refuses is left for it to refuse.
inline bool good_count(int count) { return count >= 0 && count <= IOV_MAX; }

inline size_t roughly(const iovec* parts, int count) {
    const long total = good_count(count) ? total_of(parts, static_cast<size_t>(count)) : 0;
    return total > 0 ? static_cast<size_t>(total) : 0;
}

/// On a connected TCP socket an address means nothing, but the kernel looks at it first. @return 0 or -errno.
inline long judge_name(const void* address, socklen_t length) {
    if (address == nullptr)
        return 0;
    return length > sizeof(sockaddr_storage) ? -EINVAL : readable(address, length) ? 0 : -EFAULT;
}

/// Flags that only the kernel's socket can serve: urgent data and the error queue are not in the ring, and a
/// connection is begun only once. How a send without a copy went is told in the error queue. A flag that
/// means nothing in its direction is no reason to go there.
constexpr int kKernelReceiveFlags = MSG_OOB | MSG_ERRQUEUE;
constexpr int kKernelSendFlags = MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY;
/// Those of a send's flags that are to be heeded: without its option MSG_ZEROCOPY means nothing.
int heeded(int fd, int flags);

/// A call with the flags `asked`. What is sent comes after what is in the ring: the stream leaves it first,
/// but for MSG_FASTOPEN, which a connection refuses and which begins one that is not there yet.
template <typename Call> [[gnu::noinline]] ssize_t by_kernel(Stream& stream, int fd, int asked, Call call) {
    const int leaving = asked & ~MSG_FASTOPEN;
    if (leaving != 0)
        leave_ring(stream, fd);
    // It cannot leave yet. This is an error that such a send may have; the program then sends with a copy.
    if ((leaving & MSG_ZEROCOPY) != 0 && stream.fused())
        return returned<ssize_t>(-ENOBUFS);
    note_own_call();
    const ssize_t result = call();
    if ((asked & MSG_FASTOPEN) != 0)
        begun_by_sending(stream, fd, result);
    if (result < 0 && (errno == ECONNRESET || errno == EPIPE || errno == ETIMEDOUT))
        stream.shared->send_to_kernel.store(1, std::memory_order_relaxed);  // said now, and only once
    forget_kernel_readiness(stream);
    return result;
}

/// MSG_CMSG_COMPAT, a flag between the kernel and itself: the calls with a message refuse it before they look
/// at anything, to the others it means nothing. (Which of its calls the kernel is asked with is our affair.)
constexpr int kForeign = static_cast<int>(0x80000000U);
inline bool is_foreign(int flags) { return (flags & kForeign) != 0; }

}  // namespace loopfast

// The shape of all the wrappers below: no entry, and the real function is called; or a stream, which the
// kernel still serves or we do. What belongs to streams stands in a function of its own, so that a call on
// any other descriptor looks into the table, jumps on, and does not so much as save a register.
#define LOOPFAST_UNPACK(...) __VA_ARGS__

#define LOOPFAST_RECEIVE_ON_STREAM(name, parameters, arguments, flags, our_call)                            \
    static __attribute__((noinline)) ssize_t name##_on_stream(Stream& stream, LOOPFAST_UNPACK parameters) { \
        if (((flags)&kKernelReceiveFlags) != 0) [[unlikely]]                                                \
            return by_kernel(stream, fd, 0, [&] { return real::name arguments; });                          \
        if (!stream.fused()) {                                                                              \
            bool moved;                                                                                     \
            const ssize_t result =                                                                          \
                kernel_receive(stream, fd, flags, moved, [&] { return real::name arguments; });             \
            if (!moved)                                                                                     \
                return result;                                                                              \
        }                                                                                                   \
        const ssize_t result = our_call;                                                                    \
        return has_to_begin_anew(result) ? ::name arguments : result;                                       \
    }

#define LOOPFAST_SEND_ON_STREAM(name, parameters, arguments, size, flags, our_call)                         \
    static __attribute__((noinline)) ssize_t name##_on_stream(Stream& stream, LOOPFAST_UNPACK parameters) { \
        if (((flags)&kKernelSendFlags) != 0) [[unlikely]]                                                   \
            if (const int asked = heeded(fd, flags); asked != 0)                                            \
                return by_kernel(stream, fd, asked, [&] { return real::name arguments; });                  \
        if (!stream.fused()) {                                                                              \
            bool moved;                                                                                     \
            const ssize_t result =                                                                          \
                kernel_send(stream, fd, size, moved, [&] { return real::name arguments; });                 \
            if (!moved)                                                                                     \
                return result;                                                                              \
        }                                                                                                   \
        const ssize_t result = our_call;                                                                    \
        return has_to_begin_anew(result) ? ::name arguments : result;                                       \
    }

#define LOOPFAST_PASS_ON(name, arguments)   \
    Stream* const stream = find_stream(fd); \
    if (stream == nullptr) [[likely]]       \
        return real::name arguments;        \
    return name##_on_stream(*stream, LOOPFAST_UNPACK arguments)

#define LOOPFAST_RECEIVE(name, parameters, arguments, flags, our_call)       \
    LOOPFAST_RECEIVE_ON_STREAM(name, parameters, arguments, flags, our_call) \
    LOOPFAST_PUBLIC ssize_t name parameters { LOOPFAST_PASS_ON(name, arguments); }

#define LOOPFAST_SEND(name, parameters, arguments, size, flags, our_call)       \
    LOOPFAST_SEND_ON_STREAM(name, parameters, arguments, size, flags, our_call) \
    LOOPFAST_PUBLIC ssize_t name parameters { LOOPFAST_PASS_ON(name, arguments); }
