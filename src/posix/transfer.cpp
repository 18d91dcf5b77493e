// The calls that move bytes from and to plain buffers and vectors: read and write in all their forms. Those
// with a message are in messages.cpp.
#include "posix/transfer.h"

#include <fcntl.h>

#include "wait/caller.h"

namespace loopfast {

[[gnu::noinline]] int error_of_no_socket(int fd) {
    for (int i = 0; i < 20; ++i) {
        if (sys::fcntl(fd, F_GETFD) == -EBADF)
            return EBADF;
        sys::sleep_ns(50'000);
    }
    return ENOTSOCK;
}

[[gnu::noinline]] int heeded(int fd, int flags) {
    int on = 0;
    socklen_t size = sizeof on;
    const bool copies = (flags & MSG_ZEROCOPY) == 0 ||
                        (sys::getsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, &size) == 0 && on == 0);
    return flags & kKernelSendFlags & (copies ? ~MSG_ZEROCOPY : ~0);
}

namespace {

/// A buffer that runs out of the address space: read and write refuse it before they look at anything, where
/// recv and send move what they can.
bool runs_out(const void* buffer, size_t size) {
    return size > kMostBytes && (size > SSIZE_MAX || reinterpret_cast<uintptr_t>(buffer) + size > SSIZE_MAX);
}

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

}  // namespace loopfast
