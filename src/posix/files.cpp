// Calls between streams and files: sendfile, splice, stdio; and the calls that make descriptors of other
// kinds, whose numbers may have belonged to a stream that was closed where we could not see it.
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/own_calls.h"
#include "base/ready.h"
#include "policy/policy.h"
#include "posix/transfer.h"
#include "stream/sleep.h"
#include "wait/blocking.h"
#include "wait/caller.h"
#include "wait/sleeper.h"

namespace loopfast {

namespace {

constexpr size_t kChunk = 16384;

size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

long send_bytes(Stream& stream, const Caller& call, const void* data, size_t size, int flags) {
    const iovec part{const_cast<void*>(data), size};
    return send(stream, call, Buffers(&part, 1), size, flags);
}

/// sendfile onto a ring: read from the file, at the offset given or the file's own, and send.
ssize_t sendfile_stream(Stream& stream, int out, int in, off_t* offset, size_t size) {
    // What is wrong with the arguments the kernel says when it is asked to send nothing.
    const ssize_t judged = real::sendfile(out, in, offset, 0);
    if (judged < 0 && errno != EOVERFLOW)
        return judged;
    const off_t from = offset != nullptr ? *offset : 0;
    if (size > SSIZE_MAX || (from > 0 && size > static_cast<size_t>(SSIZE_MAX - from)))
        return returned<ssize_t>(-EINVAL);
    if (judged < 0)
        return judged;
    size = smaller(size, kMostBytes);
    const Caller call(stream, out, Caller::kSeveralSteps);  // for all steps
    if (!call.alive())
        return returned<ssize_t>(-EBADF);
    unsigned char chunk[kChunk];
    size_t done = 0;
    while (done < size) {
        const size_t wanted = smaller(kChunk, size - done);
        // Read at a position, so that what is not sent has not been taken either.
        const off_t position = offset != nullptr ? *offset : lseek(in, 0, SEEK_CUR);
        if (position < 0)  // what has no position is nothing that sendfile takes bytes from
            return done > 0 ? static_cast<ssize_t>(done) : returned<ssize_t>(-EINVAL);
        const ssize_t got = pread(in, chunk, wanted, position);
        if (got < 0 && errno == EISDIR)
            errno = EINVAL;
        if (got <= 0)
            return done > 0 || got == 0 ? static_cast<ssize_t>(done) : -1;
        const long sent =
            send_bytes(stream, call, chunk, static_cast<size_t>(got), done > 0 ? kContinued : 0);
        if (sent < 0)
            return done > 0 ? static_cast<ssize_t>(done) : returned<ssize_t>(sent);
        if (offset != nullptr && put(offset, *offset + sent) < 0)
            return returned<ssize_t>(-EFAULT);  // sent, as by the kernel
        if (offset == nullptr)
            lseek(in, sent, SEEK_CUR);
        done += static_cast<size_t>(sent);
        if (sent < got)
            break;
    }
    return static_cast<ssize_t>(done);
}

}  // namespace

namespace {

/// @return 0 when the pipe takes something, -EPIPE when nobody reads from it, or another -errno.
long room_in_pipe(int out, bool pipe_waits) {
    for (HandlersSince handlers;; handlers = {}) {
        const uint32_t ready = ready_now(out, POLLOUT);
        if ((ready & POLLERR) != 0)
            return -EPIPE;
        if ((ready & POLLOUT) != 0)
            return 0;
        if (!pipe_waits)
            return -EAGAIN;
        pollfd one{out, POLLOUT, 0};
        const long result = sleep_in_call(SYS_ppoll, sys::word(&one), 1, 0, 0, sizeof(uint64_t), 0, handlers);
        if (result < 0 && (result != -EINTR || handlers.interrupting()))
            return result;
    }
}

/// As much as the pipe takes without waiting. @return bytes, or -errno.
long into_pipe(int pipe, const unsigned char* bytes, size_t size) {
    note_own_call();
    const iovec part{const_cast<unsigned char*>(bytes), size};
    // A program under a filter of its own may have kept itself write only.
    if (!setups_forbidden())
        if (const long written = sys::call(SYS_pwritev2, pipe, sys::word(&part), 1, -1, -1, RWF_NOWAIT);
            written != -EOPNOTSUPP && written != -ENOSYS)
            return written;
    // Before Linux 6.4. One that is writable takes a page.
    constexpr size_t kPage = 4096;
    const ssize_t result = real::write(pipe, bytes, smaller(size, kPage));
    return result < 0 ? -errno : result;
}

/// A stream into a pipe: look at the bytes, write what the pipe takes, then take as many.
ssize_t splice_out(Stream& stream, int in, int out, size_t size, unsigned flags) {
    // The stream waits as its O_NONBLOCK says, the pipe as this flag and its own say. And the pipe comes
    // first: where it is full, nobody looks whether there are bytes, or the end.
    const bool pipe_waits = (flags & SPLICE_F_NONBLOCK) == 0 && (sys::fcntl(out, F_GETFL) & O_NONBLOCK) == 0;
    const Caller call(stream, in, Caller::kSeveralSteps);  // for all steps
    if (!call.alive())
        return returned<ssize_t>(-EBADF);
    for (;;) {
        if (const long room = room_in_pipe(out, pipe_waits); room < 0)
            return room == -EPIPE ? real::write(out, "", 1) : returned<ssize_t>(room);
        unsigned char chunk[kChunk];
        const iovec part{chunk, smaller(size, kChunk)};
        Buffers to(&part, 1);
        const long seen = receive(stream, call, &to, part.iov_len, MSG_PEEK);
        if (seen <= 0)
            return returned<ssize_t>(seen);
        const long written = into_pipe(out, chunk, static_cast<size_t>(seen));
        if (written == -EAGAIN)
            continue;  // another writer was faster
        if (written > 0)
            receive(stream, call, nullptr, static_cast<size_t>(written), MSG_DONTWAIT);
        return returned<ssize_t>(written);
    }
}

/// How many bytes the stream takes now.
size_t room_of(const Stream& stream) {
    if (!stream.out_in_ring() || stream.shared->peer_left.load(std::memory_order_relaxed) != 0)
        return kChunk;
    const uint64_t limit = send_limit(stream);
    const uint64_t used = stream.writer().in_flight(true);
    return used < limit ? smaller(kChunk, limit - used) : 0;
}

/// A pipe into a stream: take no more from the pipe than there is room for, and nothing for a stream that
/// takes no more, so that what is not sent stays in the pipe.
ssize_t splice_in(Stream& stream, int in, int out, size_t size, unsigned flags) {
    // SPLICE_F_NONBLOCK is about the pipe alone, which it makes non-blocking for this call.
    const uint32_t pipe = ready_now(in, POLLIN);
    if ((flags & SPLICE_F_NONBLOCK) != 0 && (pipe & (POLLIN | POLLHUP)) == 0)
        return returned<ssize_t>(-EAGAIN);
    const Caller call(stream, out, Caller::kSeveralSteps);  // for all steps
    if (!call.alive())
        return returned<ssize_t>(-EBADF);
    size_t room = kChunk;
    while ((pipe & POLLIN) != 0) {
        const long judged = [&] {
            const Reach reach(call);
            return send_some(stream, reach.fd(), Buffers(nullptr, 0), 0, 0);
        }();
        if (judged < 0 && judged != -EAGAIN)
            return returned<ssize_t>(judged);
        room = room_of(stream);
        if (room != 0)
            break;
        const long waited = await_room(stream, call);
        if (waited < 0)
            return returned<ssize_t>(waited);
    }
    unsigned char chunk[kChunk];
    const ssize_t got = real::read(in, chunk, smaller(size, room));
    if (got <= 0)
        return got;
    const int more = (flags & SPLICE_F_MORE) != 0 ? MSG_MORE : 0;
    return returned<ssize_t>(send_bytes(stream, call, chunk, static_cast<size_t>(got), more));
}

/// What the kernel says before it moves a byte between a stream and `pipe`. @return 0, or -errno.
long judge_splice(int pipe, int mode, unsigned flags) {
    constexpr unsigned kKnown = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;
    if ((flags & ~kKnown) != 0)
        return -EINVAL;
    const int status = sys::fcntl(pipe, F_GETFL);
    if (status < 0)
        return status;
    if ((status & O_PATH) != 0)
        return -EBADF;
    const int access = status & O_ACCMODE;
    if (access != mode && access != O_RDWR)
        return -EBADF;
    return sys::fcntl(pipe, F_GETPIPE_SZ) < 0 ? -EINVAL : 0;
}

}  // namespace

LOOPFAST_PUBLIC ssize_t splice(int in, off64_t* in_offset, int out, off64_t* out_offset, size_t size,
                               unsigned flags) {
    Stream* const from = find_stream(in);
    Stream* const to = find_stream(out);
    if ((from == nullptr && to == nullptr) || in_offset != nullptr || out_offset != nullptr)
        return real::splice(in, in_offset, out, out_offset, size, flags);
    if (size == 0)
        return 0;
    if (const long refused =
            from != nullptr ? judge_splice(out, O_WRONLY, flags) : judge_splice(in, O_RDONLY, flags);
        refused < 0)
        return returned<ssize_t>(refused);
    if (from != nullptr && !from->fused()) {
        KernelReceive scope(*from);
        if (scope.allowed()) {
            const ssize_t result = real::splice(in, nullptr, out, nullptr, size, flags);
            scope.count(result, 0);
            return result;
        }
    } else if (to != nullptr && !to->fused()) {
        KernelSend scope(*to);
        if (scope.allowed() && !to->fused()) {
            const ssize_t result = real::splice(in, nullptr, out, nullptr, size, flags);
            scope.count(result, size);
            return result;
        }
    }
    const ssize_t result =
        from != nullptr ? splice_out(*from, in, out, size, flags) : splice_in(*to, in, out, size, flags);
    return has_to_begin_anew(result) ? splice(in, nullptr, out, nullptr, size, flags) : result;
}

namespace {

/// A socket into a pipe, which sendfile does as well: the pipe waits as the socket does.
[[gnu::noinline]] ssize_t sendfile_from(Stream& stream, int out, int in, off_t* offset, size_t size) {
    const unsigned flags =
        stream.shared->nonblocking.load(std::memory_order_relaxed) != 0 ? SPLICE_F_NONBLOCK : 0;
    if (offset != nullptr || size == 0 || judge_splice(out, O_WRONLY, flags) < 0)
        return real::sendfile(out, in, offset, size);  // to say what is wrong
    if (!stream.fused()) {
        KernelReceive scope(stream);
        if (scope.allowed()) {
            const ssize_t result = real::sendfile(out, in, nullptr, size);
            scope.count(result, 0);
            return result;
        }
    }
    const ssize_t result = splice_out(stream, in, out, size, flags);
    return has_to_begin_anew(result) ? ::sendfile(out, in, offset, size) : result;
}

}  // namespace

LOOPFAST_PUBLIC ssize_t sendfile(int out, int in, off_t* offset, size_t size) noexcept {
    Stream* const stream = find_stream(out);
    if (stream == nullptr) {
        if (Stream* const from = find_stream(in)) [[unlikely]]
            return sendfile_from(*from, out, in, offset, size);
        return real::sendfile(out, in, offset, size);
    }
    if (!stream->fused()) {
        before_kernel_send(*stream, out, size);
        KernelSend scope(*stream);
        if (scope.allowed() && !stream->fused()) {
            const ssize_t result = real::sendfile(out, in, offset, size);
            scope.count(result, size);
            return result;
        }
    }
    const ssize_t result = sendfile_stream(*stream, out, in, offset, size);
    return has_to_begin_anew(result) ? sendfile(out, in, offset, size) : result;
}
LOOPFAST_PUBLIC ssize_t sendfile64(int out, int in, off64_t* offset, size_t size) noexcept {
    return sendfile(out, in, offset, size);
}

namespace {

bool is_regular(int fd) {
    struct stat status {};
    return sys::call(SYS_fstat, fd, sys::word(&status)) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

// stdio reads and writes inside libc, where we do not see it: a socket that is opened as a FILE takes the
// kernel lane.
LOOPFAST_PUBLIC FILE* fdopen(int fd, const char* mode) noexcept {
    if (Stream* const stream = find_stream(fd))
        part_with(*stream, fd, Reason::kOption);
    FILE* const file = real::fdopen(fd, mode);
    // Before there is a stream, and under a filter of the program's own, nothing is asked.
    if (file != nullptr && strpbrk(mode, "wa+") != nullptr &&
        (!had_streams() || setups_forbidden() || !is_regular(fd)))
        unseen_writes.store(true, std::memory_order_relaxed);
    return file;
}

LOOPFAST_PUBLIC int fclose(FILE* file) {
    const int error = errno;
    const int fd = fileno(file);
    errno = error;
    if (fd < 0 || find(fd).kind() == EntryKind::kNone) {
        note_own_call();
        return real::fclose(file);
    }
    const TableEntry entry = before_close(fd);
    const int result = real::fclose(file);
    const int closing_error = errno;
    after_close(fd, entry);
    errno = closing_error;
    return result;
}

namespace {

/// A number the kernel just gave out: nothing of ours can be behind it any more.
template <typename Result> Result fresh(Result fd) {
    if (fd >= 0)
        appeared(static_cast<int>(fd));
    return fd;
}

template <typename Function> Function next(const char* name, Function& cached) {
    if (cached == nullptr)
        cached = reinterpret_cast<Function>(real::next_symbol(name));
    return cached;
}

}  // namespace

#define LOOPFAST_FRESH(name, parameters, arguments)  \
    LOOPFAST_PUBLIC int name parameters noexcept {   \
        static int(*cached) parameters = nullptr;    \
        return fresh(next(#name, cached) arguments); \
    }

LOOPFAST_FRESH(eventfd, (unsigned value, int flags), (value, flags))
LOOPFAST_FRESH(timerfd_create, (clockid_t clock, int flags), (clock, flags))
LOOPFAST_FRESH(signalfd, (int fd, const sigset_t* mask, int flags), (fd, mask, flags))
LOOPFAST_FRESH(inotify_init, (), ())
LOOPFAST_FRESH(inotify_init1, (int flags), (flags))
LOOPFAST_FRESH(memfd_create, (const char* name, unsigned flags), (name, flags))

// libc's own call inside these goes past us; what they make ready is to be heard of at once.
#define LOOPFAST_NOTED(Result, name, parameters, arguments)  \
    LOOPFAST_PUBLIC Result name parameters {                 \
        static Result(*cached) parameters = nullptr;         \
        const Result result = next(#name, cached) arguments; \
        if (had_streams())                                   \
            note_own_call();                                 \
        return result;                                       \
    }

LOOPFAST_NOTED(int, timerfd_settime, (int fd, int flags, const itimerspec* value, itimerspec* old) noexcept,
               (fd, flags, value, old))

LOOPFAST_NOTED(ssize_t, vmsplice, (int pipe, const iovec* parts, size_t count, unsigned flags),
               (pipe, parts, count, flags))
LOOPFAST_NOTED(ssize_t, tee, (int in, int out, size_t size, unsigned flags), (in, out, size, flags))

LOOPFAST_PUBLIC int eventfd_write(int fd, eventfd_t value) {
    return write(fd, &value, sizeof value) == sizeof value ? 0 : -1;
}

LOOPFAST_PUBLIC int pipe2(int* fds, int flags) noexcept {
    static int (*cached)(int*, int) = nullptr;
    const int result = next("pipe2", cached)(fds, flags);
    if (result == 0) {
        fresh(fds[0]);
        fresh(fds[1]);
    }
    return result;
}
LOOPFAST_PUBLIC int pipe(int* fds) noexcept { return pipe2(fds, 0); }

LOOPFAST_PUBLIC int socketpair(int family, int type, int protocol, int* fds) noexcept {
    static int (*cached)(int, int, int, int*) = nullptr;
    const int result = next("socketpair", cached)(family, type, protocol, fds);
    if (result == 0) {
        fresh(fds[0]);
        fresh(fds[1]);
    }
    return result;
}

namespace {

bool takes_mode(int flags) { return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE; }

}  // namespace

#define LOOPFAST_OPEN(name, at_parameters, at_arguments)                            \
    LOOPFAST_PUBLIC int name at_parameters {                                        \
        using Function = int(*) at_parameters;                                      \
        static Function cached = nullptr;                                           \
        __builtin_va_list list;                                                     \
        __builtin_va_start(list, flags);                                            \
        const mode_t mode = takes_mode(flags) ? __builtin_va_arg(list, mode_t) : 0; \
        __builtin_va_end(list);                                                     \
        return fresh(next(#name, cached) at_arguments);                             \
    }

LOOPFAST_OPEN(open, (const char* path, int flags, ...), (path, flags, mode))
LOOPFAST_OPEN(open64, (const char* path, int flags, ...), (path, flags, mode))
LOOPFAST_OPEN(openat, (int at, const char* path, int flags, ...), (at, path, flags, mode))
LOOPFAST_OPEN(openat64, (int at, const char* path, int flags, ...), (at, path, flags, mode))

}  // namespace loopfast
