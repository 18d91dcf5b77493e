// The calls that move bytes with a message: recvmsg, sendmsg, and several messages at once. A connected TCP
// socket names no sender and has no control data but what was asked for; what goes along in control data may
// be a reason to leave the ring.
#include <limits.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/ready.h"
#include "posix/transfer.h"
#include "wait/caller.h"
#include "wait/epoll_set.h"

namespace loopfast {

namespace {

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
               ? loopfast::roughly(message->msg_iov, static_cast<int>(message->msg_iovlen))
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
    // All of it is one call on one file, whatever another thread does to the number, by which nothing is
    // looked up any more.
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
        const ssize_t result =
            readable(&messages[done], sizeof messages[done])
                ? recvmsg_on_stream(*stream, call.fd(), &messages[done].msg_hdr, flags & ~MSG_WAITFORONE)
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
        const bool there = readable(&messages[done], sizeof messages[done]);
        if (there)
            leave_for_control(call.fd(), &messages[done].msg_hdr);
        const ssize_t result = there ? sendmsg_on_stream(*stream, call.fd(), &messages[done].msg_hdr, flags)
                                     : returned<ssize_t>(-EFAULT);
        if (result < 0)
            return done > 0 ? static_cast<int>(done) : -1;
        if (put(&messages[done].msg_len, static_cast<unsigned>(result)) < 0) [[unlikely]]
            return done > 0 ? static_cast<int>(done) : returned<int>(-EFAULT);
    }
    return static_cast<int>(done);
}

}  // namespace loopfast
