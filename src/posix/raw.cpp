// syscall(): programs that name their system calls by number. A call that our wrappers stand in front of is
// given to its wrapper, with the kernel's manners where libc's differ: it is no cancellation point, ppoll and
// pselect6 say how much of the time is left, and masks come with their size.
//
// Everything else goes on as it is. The system call is made right here until our constructor has found the
// real function: an allocator that makes its first calls through syscall() must not be asked for memory by
// the search for it.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/own_calls.h"
#include "posix/posix.h"
#include "posix/raw_signals.h"
#include "posix/restrictions.h"
#include "posix/rings.h"
#include "posix/socket_maps.h"
#include "wait/epoll_set.h"

namespace loopfast {

namespace {

using Function = long (*)(long, ...);
std::atomic<Function> next{nullptr};

struct Arguments {
    long a, b, c, d, e, f;
    int fd() const { return static_cast<int>(a); }
    template <typename T> T* pointer(long value) const { return reinterpret_cast<T*>(value); }
};

long pass_on(long number, const Arguments& x) {
    note_own_call();
    const Function function = next.load(std::memory_order_relaxed);
    return function != nullptr ? function(number, x.a, x.b, x.c, x.d, x.e, x.f)
                               : returned<long>(sys::call(number, x.a, x.b, x.c, x.d, x.e, x.f));
}

/// Not a cancellation point, unlike the wrapper that serves the call.
template <typename Call> long uncancelled(Call call) {
    int before = PTHREAD_CANCEL_ENABLE;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    const long result = call();
    pthread_setcancelstate(before, nullptr);
    return result;
}

/// A number of libc's whose call made a new descriptor: what stood under it before is gone.
long made(long fd) {
    if (fd >= 0)
        appeared(static_cast<int>(fd));
    return fd;
}
long made_two(long result, const int* fds) {
    if (result == 0) {
        appeared(fds[0]);
        appeared(fds[1]);
    }
    return result;
}

/// What is left of a time that can be read, as the raw ppoll and pselect6 say it.
template <typename Wait> long telling_time(timespec* time, Wait wait) {
    if (time == nullptr)
        return wait();
    const timespec asked = *time;
    const int64_t start = now_ns();
    const long result = wait();
    const int64_t took = now_ns() - start;
    int64_t left = asked.tv_sec >= kForever / 1'000'000'000
                       ? kForever
                       : asked.tv_sec * 1'000'000'000LL + asked.tv_nsec - took;
    left = left < 0 ? 0 : left;
    const timespec rest{left / 1'000'000'000LL, left % 1'000'000'000LL};
    const iovec part{time, sizeof rest};
    if (left != kForever && (result >= 0 || errno != EINVAL))
        Buffers(&part, 1).copy_out(&rest, sizeof rest);
    return result;
}

constexpr long kMaskSize = 8;

/// libc's wrappers read a time, where the kernel says EFAULT of one that is not there.
bool readable_time(long value) {
    return value == 0 || readable(reinterpret_cast<const void*>(value), sizeof(timespec));
}

long raw_pselect(long number, const Arguments& x) {
    if (!had_streams() || !readable_time(x.e))
        return pass_on(number, x);
    struct Mask {
        const sigset_t* mask;
        size_t size;
    } given{};
    if (x.f != 0) {
        if (!readable(x.pointer<void>(x.f), sizeof given))
            return pass_on(number, x);
        memcpy(&given, x.pointer<void>(x.f), sizeof given);
        if (given.mask != nullptr && given.size != kMaskSize)
            return pass_on(number, x);
    }
    return telling_time(x.pointer<timespec>(x.e), [&] {
        return ::pselect(x.fd(), x.pointer<fd_set>(x.b), x.pointer<fd_set>(x.c), x.pointer<fd_set>(x.d),
                         x.pointer<timespec>(x.e), given.mask);
    });
}

/// A fork that no handler of pthread_atfork hears of.
long raw_fork(long number, const Arguments& x, uint64_t flags) {
    before_clone(flags);
    return like_fork([&] { return pass_on(number, x); });
}

/// @return false: a thread, or one that runs on this memory, which is made as asked.
bool raw_clone(long number, const Arguments& x, uint64_t flags, long& result) {
    if ((flags & CLONE_VM) != 0) {
        before_clone(flags);
        return false;
    }
    result = raw_fork(number, x, flags);
    return true;
}

/// io_submit: the kernel reads, writes and polls on its own account, as POSIX AIO's threads do (aio.cpp).
void hand_back_requests(const Arguments& x) {
    const auto* const requests = x.pointer<const iocb* const>(x.c);
    for (long i = 0; i < x.b; ++i) {
        if (!readable(requests + i, sizeof *requests) || !readable(requests[i], sizeof **requests))
            return;  // the kernel, too, ends here
        const auto fd = static_cast<int>(requests[i]->aio_fildes);
        if (Stream* const stream = find_stream(fd))
            part_with(*stream, fd, Reason::kOption);
    }
}

/// Calls that move bytes or wait. @return false when `number` is none of them.
bool moves_bytes(long number, const Arguments& x, long& result) {
    const int fd = x.fd();
    const auto size = static_cast<size_t>(x.c);
    switch (number) {
    case SYS_read:
        result = uncancelled([&] { return ::read(fd, x.pointer<void>(x.b), size); });
        return true;
    case SYS_write:
        result = uncancelled([&] { return ::write(fd, x.pointer<void>(x.b), size); });
        return true;
    case SYS_readv:
        result = uncancelled([&] { return ::readv(fd, x.pointer<iovec>(x.b), static_cast<int>(x.c)); });
        return true;
    case SYS_writev:
        result = uncancelled([&] { return ::writev(fd, x.pointer<iovec>(x.b), static_cast<int>(x.c)); });
        return true;
    case SYS_preadv2:
        result = uncancelled([&] {
            return ::preadv2(fd, x.pointer<iovec>(x.b), static_cast<int>(x.c), x.d, static_cast<int>(x.f));
        });
        return true;
    case SYS_pwritev2:
        result = uncancelled([&] {
            return ::pwritev2(fd, x.pointer<iovec>(x.b), static_cast<int>(x.c), x.d, static_cast<int>(x.f));
        });
        return true;
    case SYS_recvfrom:
        result = uncancelled([&] {
            return ::recvfrom(fd, x.pointer<void>(x.b), size, static_cast<int>(x.d), x.pointer<sockaddr>(x.e),
                              x.pointer<socklen_t>(x.f));
        });
        return true;
    case SYS_sendto:
        result = uncancelled([&] {
            return ::sendto(fd, x.pointer<void>(x.b), size, static_cast<int>(x.d), x.pointer<sockaddr>(x.e),
                            static_cast<socklen_t>(x.f));
        });
        return true;
    case SYS_recvmsg:
        result = uncancelled([&] { return ::recvmsg(fd, x.pointer<msghdr>(x.b), static_cast<int>(x.c)); });
        return true;
    case SYS_sendmsg:
        result = uncancelled([&] { return ::sendmsg(fd, x.pointer<msghdr>(x.b), static_cast<int>(x.c)); });
        return true;
    case SYS_recvmmsg:
        result = uncancelled([&] {
            return ::recvmmsg(fd, x.pointer<mmsghdr>(x.b), static_cast<unsigned>(x.c), static_cast<int>(x.d),
                              x.pointer<timespec>(x.e));
        });
        return true;
    case SYS_sendmmsg:
        result = uncancelled([&] {
            return ::sendmmsg(fd, x.pointer<mmsghdr>(x.b), static_cast<unsigned>(x.c), static_cast<int>(x.d));
        });
        return true;
    case SYS_connect:
        result =
            uncancelled([&] { return ::connect(fd, x.pointer<sockaddr>(x.b), static_cast<socklen_t>(x.c)); });
        return true;
    case SYS_accept:
        result =
            uncancelled([&] { return ::accept(fd, x.pointer<sockaddr>(x.b), x.pointer<socklen_t>(x.c)); });
        return true;
    case SYS_accept4:
        result = uncancelled([&] {
            return ::accept4(fd, x.pointer<sockaddr>(x.b), x.pointer<socklen_t>(x.c), static_cast<int>(x.d));
        });
        return true;
    case SYS_sendfile:
        result = uncancelled([&] {
            return ::sendfile(fd, static_cast<int>(x.b), x.pointer<off_t>(x.c), static_cast<size_t>(x.d));
        });
        return true;
    case SYS_splice:
        result = uncancelled([&] {
            return ::splice(fd, x.pointer<off64_t>(x.b), static_cast<int>(x.c), x.pointer<off64_t>(x.d),
                            static_cast<size_t>(x.e), static_cast<unsigned>(x.f));
        });
        return true;
    case SYS_io_submit:
        if (had_streams())
            hand_back_requests(x);
        return false;
    default:
        return false;
    }
}

bool waits(long number, const Arguments& x, long& result) {
    const bool masked_well = number == SYS_epoll_pwait || number == SYS_epoll_pwait2
                                 ? x.e == 0 || x.f == kMaskSize
                                 : x.d == 0 || x.e == kMaskSize;
    switch (number) {
#ifdef SYS_poll
    case SYS_poll:
        result = uncancelled([&] {
            return ::poll(x.pointer<pollfd>(x.a), static_cast<nfds_t>(static_cast<unsigned>(x.b)),
                          static_cast<int>(x.c));
        });
        return true;
#endif
    case SYS_ppoll:
        if (!masked_well || !had_streams() || !readable_time(x.c))
            return false;
        result = uncancelled([&] {
            return telling_time(x.pointer<timespec>(x.c), [&] {
                return ::ppoll(x.pointer<pollfd>(x.a), static_cast<nfds_t>(static_cast<unsigned>(x.b)),
                               x.pointer<timespec>(x.c), x.pointer<sigset_t>(x.d));
            });
        });
        return true;
#ifdef SYS_select
    case SYS_select:
        if (!had_streams() || !readable_time(x.e))
            return false;
        result = uncancelled([&] {
            return ::select(x.fd(), x.pointer<fd_set>(x.b), x.pointer<fd_set>(x.c), x.pointer<fd_set>(x.d),
                            x.pointer<timeval>(x.e));
        });
        return true;
#endif
    case SYS_pselect6:
        result = uncancelled([&] { return raw_pselect(number, x); });
        return true;
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
        result = uncancelled([&] {
            return ::epoll_wait(x.fd(), x.pointer<epoll_event>(x.b), static_cast<int>(x.c),
                                static_cast<int>(x.d));
        });
        return true;
#endif
    case SYS_epoll_pwait:
        if (!masked_well)
            return false;
        result = uncancelled([&] {
            return ::epoll_pwait(x.fd(), x.pointer<epoll_event>(x.b), static_cast<int>(x.c),
                                 static_cast<int>(x.d), x.pointer<sigset_t>(x.e));
        });
        return true;
    case SYS_epoll_pwait2:
        if (!masked_well)
            return false;
        result = uncancelled([&] {
            return ::epoll_pwait2(x.fd(), x.pointer<epoll_event>(x.b), static_cast<int>(x.c),
                                  x.pointer<timespec>(x.d), x.pointer<sigset_t>(x.e));
        });
        return true;
    default:
        return false;
    }
}

/// Calls about one socket or set that neither move bytes nor wait.
bool concerns_a_socket(long number, const Arguments& x, long& result) {
    const int fd = x.fd();
    switch (number) {
    case SYS_shutdown:
        result = ::shutdown(fd, static_cast<int>(x.b));
        return true;
    case SYS_setsockopt:
        result = ::setsockopt(fd, static_cast<int>(x.b), static_cast<int>(x.c), x.pointer<void>(x.d),
                              static_cast<socklen_t>(x.e));
        return true;
    case SYS_getsockopt:
        result = ::getsockopt(fd, static_cast<int>(x.b), static_cast<int>(x.c), x.pointer<void>(x.d),
                              x.pointer<socklen_t>(x.e));
        return true;
    case SYS_ioctl:
        result = ::ioctl(fd, static_cast<unsigned long>(x.b), x.pointer<void>(x.c));
        return true;
    case SYS_fcntl:
        result = ::fcntl(fd, static_cast<int>(x.b), x.pointer<void>(x.c));
        return true;
    case SYS_epoll_ctl:
        result = ::epoll_ctl(fd, static_cast<int>(x.b), static_cast<int>(x.c), x.pointer<epoll_event>(x.d));
        return true;
    case SYS_bpf:
        result = pass_on(number, x);
        if (result == 0 && x.a == BPF_MAP_UPDATE_ELEM)
            note_map_update(x.pointer<void>(x.b), static_cast<size_t>(x.c));
        return true;
    default:
        return false;
    }
}

/// Calls that make, double and close descriptors, and the limit on them.
bool concerns_numbers(long number, const Arguments& x, long& result) {
    switch (number) {
    case SYS_socket:
        result = ::socket(x.fd(), static_cast<int>(x.b), static_cast<int>(x.c));
        return true;
    case SYS_close:
        result = ::close(x.fd());
        return true;
    case SYS_close_range:
        result = ::close_range(static_cast<unsigned>(x.a), static_cast<unsigned>(x.b), static_cast<int>(x.c));
        return true;
    case SYS_dup:
        result = ::dup(x.fd());
        return true;
#ifdef SYS_dup2
    case SYS_dup2:
        result = ::dup2(x.fd(), static_cast<int>(x.b));
        return true;
#endif
    case SYS_dup3:
        result = ::dup3(x.fd(), static_cast<int>(x.b), static_cast<int>(x.c));
        return true;
#ifdef SYS_epoll_create
    case SYS_epoll_create:
        result = ::epoll_create(x.fd());
        return true;
#endif
    case SYS_epoll_create1:
        result = ::epoll_create1(x.fd());
        return true;
    case SYS_prlimit64:
        result = ::prlimit(static_cast<pid_t>(x.a), static_cast<__rlimit_resource>(x.b),
                           x.pointer<rlimit>(x.c), x.pointer<rlimit>(x.d));
        return true;
#ifdef SYS_getrlimit
    case SYS_getrlimit:
        result = ::getrlimit(static_cast<__rlimit_resource>(x.a), x.pointer<rlimit>(x.b));
        return true;
    case SYS_setrlimit:
        result = ::setrlimit(static_cast<__rlimit_resource>(x.a), x.pointer<rlimit>(x.b));
        return true;
#endif
#ifdef SYS_open
    case SYS_open:
    case SYS_creat:
    case SYS_eventfd:
    case SYS_inotify_init:
#endif
    case SYS_openat:
    case SYS_openat2:
    case SYS_eventfd2:
    case SYS_timerfd_create:
    case SYS_signalfd4:
    case SYS_memfd_create:
    case SYS_inotify_init1:
    case SYS_pidfd_open:
    case SYS_pidfd_getfd:
    case SYS_userfaultfd:
    case SYS_perf_event_open:
        result = made(pass_on(number, x));
        return true;
#ifdef SYS_pipe
    case SYS_pipe:
#endif
    case SYS_pipe2:
        result = made_two(pass_on(number, x), x.pointer<int>(x.a));
        return true;
    case SYS_socketpair:
        result = made_two(pass_on(number, x), x.pointer<int>(x.d));
        return true;
    default:
        return false;
    }
}

bool concerns_processes(long number, const Arguments& x, long& result) {
    switch (number) {
#ifdef SYS_fork
    case SYS_fork:
        result = raw_fork(number, x, 0);
        return true;
#endif
    case SYS_clone:
        return raw_clone(number, x, static_cast<uint64_t>(x.a), result);
    case SYS_clone3: {
        const auto* const flags = x.pointer<const uint64_t>(x.a);
        return readable(flags, sizeof *flags) && raw_clone(number, x, *flags, result);
    }
    case SYS_exit:
        if (sys::gettid() == sys::getpid())
            end_main_thread();
        return false;
    case SYS_exit_group:
        ::_exit(static_cast<int>(x.a));
    case SYS_unshare:
        result = ::unshare(static_cast<int>(x.a));
        return true;
    case SYS_setns:
        result = ::setns(x.fd(), static_cast<int>(x.b));
        return true;
    case SYS_execve:
        result = ::execve(x.pointer<const char>(x.a), x.pointer<char*>(x.b), x.pointer<char*>(x.c));
        return true;
    default:
        return false;
    }
}

bool concerns_signals(long number, const Arguments& x, long& result) {
    if (!raw_signal_call(number, {x.a, x.b, x.c, x.d}, result))
        return false;
    result = returned<long>(result);
    return true;
}

}  // namespace

void resolve_raw() {
    next.store(reinterpret_cast<Function>(real::next_symbol("syscall")), std::memory_order_relaxed);
}

/// syscall(2) under its own name: unistd.h declares it with an ellipsis, through which the arguments that the
/// caller did not give could not be passed on. In registers and on the stack they lie where these lie.
LOOPFAST_PUBLIC long loopfast_syscall(long number, long a, long b, long c, long d, long e, long f) noexcept
    __asm__("syscall");

LOOPFAST_PUBLIC long loopfast_syscall(long number, long a, long b, long c, long d, long e, long f) noexcept {
    const Arguments arguments{a, b, c, d, e, f};
    long result;
    if (number == SYS_io_uring_setup) [[unlikely]]
        return made(ring_refused() ? returned<long>(-ENOSYS) : pass_on(number, arguments));
    if (number == SYS_mlockall) [[unlikely]]
        return ::mlockall(static_cast<int>(a));
    if (number == SYS_munlockall) [[unlikely]]
        return ::munlockall();
    // Without streams and sets there is nothing here for us, but sockets that may become one.
    if (number == SYS_socket || table_detail::limit.load(std::memory_order_relaxed) != 0) [[unlikely]]
        if (moves_bytes(number, arguments, result) || waits(number, arguments, result) ||
            concerns_a_socket(number, arguments, result) || concerns_numbers(number, arguments, result) ||
            concerns_processes(number, arguments, result) || concerns_signals(number, arguments, result))
            return result;
    return pass_on(number, arguments);
}

}  // namespace loopfast
