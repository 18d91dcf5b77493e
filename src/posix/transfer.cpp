// The calls that move bytes: read and write in all their forms.
//
// On a stream that was never fused a call goes to the real function as it is, inside a scope that counts its
// bytes; those counts are what the hand-over is checked against.
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/ready.h"
#include "posix/posix.h"
#include "stream/sleep.h"
#include "wait/blocking.h"
#include "wait/caller.h"
#include "wait/epoll_set.h"

namespace loopfast {

namespace {

/// The most one call moves, as in the kernel.
constexpr size_t kMostBytes = 0x7ffff000;

/// What the call on a closed number is refused with. One that a handler makes the kernel begin anew may find
/// there, for some microseconds, a file of ours: a look at filters, a handshake.
[[gnu::noinline]] int error_of_no_socket(int fd) {
    for (int i = 0; i < 20; ++i) {
        if (sys::fcntl(fd, F_GETFD) == -EBADF)
            return EBADF;
        sys::sleep_ns(50'000);
    }
    return ENOTSOCK;
}

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
long total_of(const iovec* parts, size_t count) {
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

ssize_t receive_parts(Stream& stream, int fd, const iovec* parts, size_t count, int flags) {
    const long total = total_of(parts, count);
    if (total < 0)
        return returned<ssize_t>(total);
    Buffers to(parts, count);
    const bool drop = (flags & MSG_TRUNC) != 0;
    return returned<ssize_t>(receive(stream, fd, drop ? nullptr : &to, static_cast<size_t>(total), flags));
}

ssize_t send_parts(Stream& stream, int fd, const iovec* parts, size_t count, int flags) {
    const long total = total_of(parts, count);
    if (total < 0)
        return returned<ssize_t>(total);
    return returned<ssize_t>(send(stream, fd, Buffers(parts, count), static_cast<size_t>(total), flags));
}

/// Flags that only the kernel's socket can serve: urgent data and the error queue are not in the ring, and a
/// connection is begun only once. How a send without a copy went is told in the error queue. A flag that
/// means nothing in its direction is no reason to go there.
constexpr int kKernelReceiveFlags = MSG_OOB | MSG_ERRQUEUE;
constexpr int kKernelSendFlags = MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY;

/// Those of a send's flags that are to be heeded: without its option MSG_ZEROCOPY means nothing.
[[gnu::noinline]] int heeded(int fd, int flags) {
    int on = 0;
    socklen_t size = sizeof on;
    const bool copies = (flags & MSG_ZEROCOPY) == 0 ||
                        (sys::getsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, &size) == 0 && on == 0);
    return flags & kKernelSendFlags & (copies ? ~MSG_ZEROCOPY : ~0);
}

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

/// A buffer that runs out of the address space: read and write refuse it before they look at anything, where
/// recv and send move what they can.
bool runs_out(const void* buffer, size_t size) {
    return size > kMostBytes && (size > SSIZE_MAX || reinterpret_cast<uintptr_t>(buffer) + size > SSIZE_MAX);
}

/// MSG_CMSG_COMPAT, a flag between the kernel and itself: the calls with a message refuse it before they look
/// at anything, to the others it means nothing. (Which of its calls the kernel is asked with is our affair.)
constexpr int kForeign = static_cast<int>(0x80000000U);
bool is_foreign(int flags) { return (flags & kForeign) != 0; }

ssize_t receive_one(Stream& stream, int fd, void* buffer, size_t size, int flags) {
    const iovec part{buffer, size < kMostBytes ? size : kMostBytes};
    Buffers to(&part, 1);
    return returned<ssize_t>(
        receive(stream, fd, (flags & MSG_TRUNC) != 0 ? nullptr : &to, part.iov_len, flags & ~kForeign));
}

ssize_t send_one(Stream& stream, int fd, const void* buffer, size_t size, int flags) {
    const iovec part{const_cast<void*>(buffer), size < kMostBytes ? size : kMostBytes};
    return returned<ssize_t>(send(stream, fd, Buffers(&part, 1), part.iov_len, flags & ~kForeign));
}

}  // namespace

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

// A read of nothing neither waits nor fails; a recv of nothing does.
LOOPFAST_RECEIVE(read, (int fd, void* buffer, size_t size), (fd, buffer, size), 0,
                 size == 0                ? 0
                 : runs_out(buffer, size) ? returned<ssize_t>(-EFAULT)
                                          : receive_one(stream, fd, buffer, size, 0))

LOOPFAST_RECEIVE(recv, (int fd, void* buffer, size_t size, int flags), (fd, buffer, size, flags), flags,
                 receive_one(stream, fd, buffer, size, flags))

namespace {

/// A connected TCP socket names no sender: the kernel leaves the address alone and says that its size is 0.
/// What it says of a bad size it says after it has taken the bytes.
ssize_t without_name(ssize_t result, const sockaddr* address, socklen_t* length) {
    if (result < 0 || address == nullptr)
        return result;
    const socklen_t none = 0;
    int given = 0;
    const iovec part{length, sizeof none};
    if (!Buffers(&part, 1).copy_in(&given, sizeof given))
        return returned<ssize_t>(-EFAULT);
    if (given < 0)
        return returned<ssize_t>(-EINVAL);
    return Buffers(&part, 1).copy_out(&none, sizeof none) ? result : returned<ssize_t>(-EFAULT);
}

/// On a connected TCP socket an address means nothing, but the kernel looks at it first. @return 0 or -errno.
long judge_name(const void* address, socklen_t length) {
    if (address == nullptr)
        return 0;
    return length > sizeof(sockaddr_storage) ? -EINVAL : readable(address, length) ? 0 : -EFAULT;
}

}  // namespace

LOOPFAST_RECEIVE(recvfrom,
                 (int fd, void* buffer, size_t size, int flags, sockaddr* address, socklen_t* length),
                 (fd, buffer, size, flags, address, length), flags,
                 without_name(receive_one(stream, fd, buffer, size, flags), address, length))

LOOPFAST_SEND(write, (int fd, const void* buffer, size_t size), (fd, buffer, size), size, 0,
              runs_out(buffer, size) ? returned<ssize_t>(-EFAULT) : send_one(stream, fd, buffer, size, 0))

LOOPFAST_SEND(send, (int fd, const void* buffer, size_t size, int flags), (fd, buffer, size, flags), size,
              flags, send_one(stream, fd, buffer, size, flags))

namespace {

ssize_t sendto_stream(Stream& stream, int fd, const void* buffer, size_t size, int flags,
                      const sockaddr* address, socklen_t length) {
    if (const long refused = judge_name(address, length); refused < 0) [[unlikely]]
        return returned<ssize_t>(refused);
    return send_one(stream, fd, buffer, size, flags);
}

}  // namespace

LOOPFAST_SEND(sendto,
              (int fd, const void* buffer, size_t size, int flags, const sockaddr* address, socklen_t length),
              (fd, buffer, size, flags, address, length), size, flags,
              sendto_stream(stream, fd, buffer, size, flags, address, length))

namespace {

/// A count that the kernel refuses is left for it to refuse.
bool good_count(int count) { return count >= 0 && count <= IOV_MAX; }

size_t roughly(const iovec* parts, int count) {
    const long total = good_count(count) ? total_of(parts, static_cast<size_t>(count)) : 0;
    return total > 0 ? static_cast<size_t>(total) : 0;
}

ssize_t readv_stream(Stream& stream, int fd, const iovec* parts, int count, int flags) {
    if (!good_count(count))
        return returned<ssize_t>(-EINVAL);
    // A vector of nothing neither waits nor fails, here and in writev_stream.
    const long total = total_of(parts, static_cast<size_t>(count));
    if (total <= 0)
        return returned<ssize_t>(total);
    Buffers to(parts, static_cast<size_t>(count));
    return returned<ssize_t>(receive(stream, fd, &to, static_cast<size_t>(total), flags));
}

ssize_t writev_stream(Stream& stream, int fd, const iovec* parts, int count, int flags) {
    if (!good_count(count))
        return returned<ssize_t>(-EINVAL);
    const long total = total_of(parts, static_cast<size_t>(count));
    if (total <= 0)
        return returned<ssize_t>(total);
    return returned<ssize_t>(
        send(stream, fd, Buffers(parts, static_cast<size_t>(count)), static_cast<size_t>(total), flags));
}

}  // namespace

LOOPFAST_RECEIVE(readv, (int fd, const iovec* parts, int count), (fd, parts, count), 0,
                 readv_stream(stream, fd, parts, count, 0))

LOOPFAST_SEND(writev, (int fd, const iovec* parts, int count), (fd, parts, count), roughly(parts, count), 0,
              writev_stream(stream, fd, parts, count, 0))

// A socket has no offset: with -1 these are readv and writev with flags, with anything else ESPIPE, which
// the kernel says best. The flags here are those that it accepts on a socket, whether they mean anything
// there or not; it refuses all others.
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
static constexpr int kSocketFlags = RWF_NOWAIT | RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND | RWF_NOAPPEND;
static int message_flags(int flags) { return (flags & RWF_NOWAIT) != 0 ? MSG_DONTWAIT : 0; }
LOOPFAST_RECEIVE_ON_STREAM(preadv2, (int fd, const iovec* parts, int count, off_t offset, int flags),
                           (fd, parts, count, offset, flags), message_flags(flags),
                           readv_stream(stream, fd, parts, count, message_flags(flags)))
LOOPFAST_PUBLIC ssize_t preadv2(int fd, const iovec* parts, int count, off_t offset, int flags) {
    if (offset != -1 || (flags & ~kSocketFlags) != 0)
        return real::preadv2(fd, parts, count, offset, flags);
    LOOPFAST_PASS_ON(preadv2, (fd, parts, count, offset, flags));
}

LOOPFAST_SEND_ON_STREAM(pwritev2, (int fd, const iovec* parts, int count, off_t offset, int flags),
                        (fd, parts, count, offset, flags), roughly(parts, count), message_flags(flags),
                        writev_stream(stream, fd, parts, count, message_flags(flags)))
LOOPFAST_PUBLIC ssize_t pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags) {
    if (offset != -1 || (flags & ~kSocketFlags) != 0)
        return real::pwritev2(fd, parts, count, offset, flags);
    LOOPFAST_PASS_ON(pwritev2, (fd, parts, count, offset, flags));
}
LOOPFAST_PUBLIC ssize_t preadv64v2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
    return preadv2(fd, parts, count, offset, flags);
}
LOOPFAST_PUBLIC ssize_t pwritev64v2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
    return pwritev2(fd, parts, count, offset, flags);
}

namespace {

/// TCP_INQ's part of a received message, cut as the kernel cuts it where there is little room.
[[gnu::noinline]] void tell_rest(Stream& stream, int fd, msghdr& told, size_t room) {
    alignas(cmsghdr) unsigned char control[CMSG_SPACE(sizeof(int))] = {};
    auto* const header = reinterpret_cast<cmsghdr*>(control);
    const int rest = rest_of_bytes(stream, fd);
    header->cmsg_level = SOL_TCP;
    header->cmsg_type = TCP_CM_INQ;
    memcpy(CMSG_DATA(header), &rest, sizeof rest);
    if (told.msg_control == nullptr || room < sizeof *header) {
        told.msg_flags |= MSG_CTRUNC;
        return;
    }
    header->cmsg_len = CMSG_LEN(sizeof rest);
    if (room < header->cmsg_len) {
        told.msg_flags |= MSG_CTRUNC;
        header->cmsg_len = room;
    }
    const iovec part{told.msg_control, header->cmsg_len};
    if (Buffers(&part, 1).copy_out(control, header->cmsg_len))
        told.msg_controllen = room < sizeof control ? room : sizeof control;
}

ssize_t recvmsg_stream(Stream& stream, int fd, msghdr* message, int flags) {
    if (is_foreign(flags)) [[unlikely]]
        return returned<ssize_t>(-EINVAL);
    if (!readable(message, sizeof *message))
        return returned<ssize_t>(-EFAULT);
    if (message->msg_name != nullptr && message->msg_namelen > INT_MAX)
        return returned<ssize_t>(-EINVAL);
    if (message->msg_iovlen > IOV_MAX)
        return returned<ssize_t>(-EMSGSIZE);
    const ssize_t result = receive_parts(stream, fd, message->msg_iov, message->msg_iovlen, flags);
    if (result >= 0) {
        // What the kernel reports of a TCP socket: no name, no control data but what TCP_INQ asks for. Where
        // it cannot be written the bytes have been taken all the same.
        msghdr told = *message;
        if (message->msg_name != nullptr)
            told.msg_namelen = 0;
        told.msg_controllen = 0;
        told.msg_flags = flags & MSG_CMSG_CLOEXEC;
        if (stream.shared->tells_rest.load(std::memory_order_relaxed) != 0) [[unlikely]]
            tell_rest(stream, fd, told, message->msg_controllen);
        if (put(message, told) < 0) [[unlikely]]
            return returned<ssize_t>(-EFAULT);
    }
    return result;
}

/// What the kernel makes of control data that comes with `message`: it is asked with a message of nothing.
long judge_control(int fd, const msghdr& message) {
    msghdr empty{};
    empty.msg_control = message.msg_control;
    empty.msg_controllen = message.msg_controllen;
    const long result = sys::sendmsg(fd, &empty, MSG_DONTWAIT | MSG_NOSIGNAL);
    // EPIPE is for the call itself to find, with its signal; any other error was told by this look.
    return result >= 0 || result == -EAGAIN || result == -EPIPE ? 0 : result;
}

ssize_t sendmsg_stream(Stream& stream, int fd, const msghdr* message, int flags) {
    if (is_foreign(flags)) [[unlikely]]
        return returned<ssize_t>(-EINVAL);
    if (!readable(message, sizeof *message))
        return returned<ssize_t>(-EFAULT);
    if (message->msg_name != nullptr) [[unlikely]] {
        // Too long is cut here, other than for sendto.
        const socklen_t length = message->msg_namelen;
        const long refused =
            length > INT_MAX
                ? -EINVAL
                : judge_name(message->msg_name,
                             length > sizeof(sockaddr_storage) ? sizeof(sockaddr_storage) : length);
        if (refused < 0)
            return returned<ssize_t>(refused);
    }
    if (message->msg_iovlen > IOV_MAX)
        return returned<ssize_t>(-EMSGSIZE);
    if (message->msg_controllen != 0) [[unlikely]] {
        const long total = total_of(message->msg_iov, message->msg_iovlen);
        const long refused = total < 0 ? total : judge_control(fd, *message);
        if (refused < 0)
            return returned<ssize_t>(refused);
    }
    return send_parts(stream, fd, message->msg_iov, message->msg_iovlen, flags);
}

size_t roughly(const msghdr* message) {
    return readable(message, sizeof *message) && message->msg_iovlen <= IOV_MAX
               ? roughly(message->msg_iov, static_cast<int>(message->msg_iovlen))
               : 0;
}

}  // namespace

LOOPFAST_RECEIVE(recvmsg, (int fd, msghdr* message, int flags), (fd, message, flags), flags,
                 recvmsg_stream(stream, fd, message, flags))

namespace {

/// Descriptors that travel to another process: it would not know of the ring. And a time stamp that is asked
/// for with the bytes, which only the kernel makes.
void leave_for_control(int fd, const msghdr* message) {
    if (!readable(message, sizeof *message) || message->msg_controllen == 0 ||
        !readable(message->msg_control, message->msg_controllen))
        return;
    msghdr* const writable = const_cast<msghdr*>(message);  // CMSG_NXTHDR reads only
    for (cmsghdr* header = CMSG_FIRSTHDR(writable); header != nullptr;
         header = CMSG_NXTHDR(writable, header)) {
        if (header->cmsg_level == SOL_SOCKET &&
            (header->cmsg_type == SO_TIMESTAMPING || header->cmsg_type == SO_TIMESTAMPING_NEW)) {
            if (Stream* const stream = find_stream(fd))
                leave_ring(*stream, fd);
            continue;
        }
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
            header->cmsg_len < CMSG_LEN(0) ||
            header->cmsg_len >
                message->msg_controllen - static_cast<size_t>(reinterpret_cast<const char*>(header) -
                                                              static_cast<const char*>(message->msg_control)))
            continue;
        const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int passed;
            memcpy(&passed, CMSG_DATA(header) + i * sizeof passed, sizeof passed);
            if (Stream* const stream = find_stream(passed))
                part_with(*stream, passed, Reason::kOption);
            else if (EpollSet* const set = find_set(passed))
                set->nest();  // who gets it waits in the kernel's set
        }
    }
}

}  // namespace

LOOPFAST_SEND_ON_STREAM(sendmsg, (int fd, const msghdr* message, int flags), (fd, message, flags),
                        roughly(message), flags, sendmsg_stream(stream, fd, message, flags))
LOOPFAST_PUBLIC ssize_t sendmsg(int fd, const msghdr* message, int flags) {
    if (had_streams()) [[unlikely]]
        leave_for_control(fd, message);
    LOOPFAST_PASS_ON(sendmsg, (fd, message, flags));
}

namespace {

/// An error that waits is told before anything is received, other than by recvmsg.
long error_first(Stream& stream, int fd) {
    const int ready = stream.fused() ? static_cast<int>(kernel_readiness(stream, fd, Freshness::kRecent))
                                     : ready_now(fd, 0);
    int error = 0;
    socklen_t size = sizeof error;
    return ready > 0 && (ready & POLLERR) != 0 && ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0
               ? -error
               : 0;
}

/// After the first message: an error that waits for later calls, with nothing to be received before it.
bool error_is_due(Stream& stream, int fd) {
    return stream.fused() && bytes_waiting(stream, fd) == 0 &&
           (kernel_readiness(stream, fd, Freshness::kRecent) & POLLERR) != 0;
}

/// An error after the first message is kept for later calls. Only a call of this kind makes the kernel keep
/// one: it gets a message that succeeds, without taking anything, and one that fails in the same way. For
/// that there has to be something on the kernel lane.
[[gnu::noinline]] void keep_error(Stream& stream, int fd, int error) {
    if (error != EFAULT && error != EMSGSIZE && error != EINVAL)
        return;
    leave_ring(stream, fd);
    char byte;
    iovec good{&byte, 1};
    iovec bad{reinterpret_cast<void*>(1), 1};
    mmsghdr messages[2]{};
    messages[0].msg_hdr.msg_iov = &good;
    messages[0].msg_hdr.msg_iovlen = 1;
    msghdr& failing = messages[1].msg_hdr;
    failing.msg_iov = &bad;
    failing.msg_iovlen = error == EMSGSIZE ? IOV_MAX + 1 : 1;
    if (error == EINVAL) {
        failing.msg_name = &byte;
        failing.msg_namelen = ~0U;
    }
    sys::call(SYS_recvmmsg, fd, sys::word(messages), 2, MSG_PEEK | MSG_DONTWAIT, 0);
    forget_kernel_readiness(stream);
    errno = error;
}

}  // namespace

LOOPFAST_PUBLIC int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
    Stream* const stream = find_stream(fd);
    if (stream == nullptr)
        return real::recvmmsg(fd, messages, count, flags, timeout);
    if (is_foreign(flags)) [[unlikely]]
        return returned<int>(-EINVAL);
    if (!readable(timeout, timeout != nullptr ? sizeof *timeout : 0))
        return returned<int>(-EFAULT);
    if (timeout != nullptr &&
        (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1'000'000'000))
        return returned<int>(-EINVAL);
    // All of it is one call on one file, whatever another thread does to the number.
    const Caller call(*stream, fd, Caller::kSeveralSteps);
    if ((flags & MSG_ERRQUEUE) == 0)
        if (const long error = error_first(*stream, fd); error != 0)
            return returned<int>(error);
    // As the kernel does it: one recvmsg after the other, an error after the first is kept for later calls.
    const int64_t deadline =
        timeout == nullptr ? kForever : deadline_after(timeout->tv_sec * 1'000'000'000LL + timeout->tv_nsec);
    unsigned done = 0;
    while (done < count) {
        if (done > 0 && error_is_due(*stream, call.fd())) [[unlikely]]
            break;
        const ssize_t result = readable(&messages[done], sizeof messages[done])
                                   ? recvmsg(call.fd(), &messages[done].msg_hdr, flags & ~MSG_WAITFORONE)
                                   : returned<ssize_t>(-EFAULT);
        if (result < 0) {
            if (done > 0)
                keep_error(*stream, call.fd(), errno);
            return done > 0 ? static_cast<int>(done) : -1;
        }
        if (put(&messages[done].msg_len, static_cast<unsigned>(result)) < 0) [[unlikely]]
            return done > 0 ? static_cast<int>(done) : returned<int>(-EFAULT);
        ++done;
        if ((flags & MSG_WAITFORONE) != 0)
            flags |= MSG_DONTWAIT;
        if (timeout != nullptr) {
            const int64_t left = time_left(deadline);
            if (put(timeout, timespec{left / 1'000'000'000LL, left % 1'000'000'000LL}) < 0) [[unlikely]]
                return returned<int>(-EFAULT);
            if (left == 0)
                break;
        }
    }
    return static_cast<int>(done);
}

LOOPFAST_PUBLIC int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
    Stream* const stream = find_stream(fd);
    if (stream == nullptr) {
        if (had_streams()) [[unlikely]]
            for (unsigned i = 0; i < count && i < IOV_MAX; ++i)
                leave_for_control(fd, &messages[i].msg_hdr);
        return real::sendmmsg(fd, messages, count, flags);
    }
    if (is_foreign(flags)) [[unlikely]]
        return returned<int>(-EINVAL);
    const Caller call(*stream, fd, Caller::kSeveralSteps);  // as in recvmmsg
    unsigned done = 0;
    for (; done < count && done < IOV_MAX; ++done) {
        const ssize_t result = readable(&messages[done], sizeof messages[done])
                                   ? sendmsg(call.fd(), &messages[done].msg_hdr, flags)
                                   : returned<ssize_t>(-EFAULT);
        if (result < 0)
            return done > 0 ? static_cast<int>(done) : -1;
        if (put(&messages[done].msg_len, static_cast<unsigned>(result)) < 0) [[unlikely]]
            return done > 0 ? static_cast<int>(done) : returned<int>(-EFAULT);
    }
    return static_cast<int>(done);
}

}  // namespace loopfast
