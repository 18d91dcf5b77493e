// Raw system calls. The library works inside other people's processes, between them and libc, so for its
// own descriptors it talks to the kernel directly: no cancellation point, no errno touched, no symbol that
// somebody else may have interposed. Every function returns the kernel's value: >= 0, or -errno.
#pragma once

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace loopfast::sys {

#if defined(LOOPFAST_INJECT) && !defined(LOOPFAST_DOOR)
/// In the library that the fault campaign is run with (`./dev faults`): the error that this call is to fail
/// with now, or 0. See base/inject.cpp. Not at the front door, whose calls are the program's own. The
/// namespace keeps the two kinds apart.
inline namespace injecting {
long injected_error(long number, long first, long second);
#else
inline namespace plain {
constexpr long injected_error(long, long, long) { return 0; }
#endif

#if defined(__x86_64__)
inline long plain_call(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
inline long plain_call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 asm("x8") = number;
    register long x0 asm("x0") = a;
    register long x1 asm("x1") = b;
    register long x2 asm("x2") = c;
    register long x3 asm("x3") = d;
    register long x4 asm("x4") = e;
    register long x5 asm("x5") = f;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "loopfast runs on x86-64 and arm64"
#endif

inline long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
    if (const long error = injected_error(number, a, b); error != 0)
        return error;
    return plain_call(number, a, b, c, d, e, f);
}

template <typename T> long word(T* pointer) { return reinterpret_cast<long>(pointer); }

inline int close(int fd) { return static_cast<int>(call(SYS_close, fd)); }
inline int getpid() { return static_cast<int>(call(SYS_getpid)); }
inline int gettid() { return static_cast<int>(call(SYS_gettid)); }
inline int kill(int pid, int signal) { return static_cast<int>(call(SYS_kill, pid, signal)); }
inline int fcntl(int fd, int command, long argument = 0) {
    return static_cast<int>(call(SYS_fcntl, fd, command, argument));
}
inline int ioctl(int fd, unsigned long request, void* argument) {
    return static_cast<int>(call(SYS_ioctl, fd, static_cast<long>(request), word(argument)));
}
inline long read(int fd, void* buffer, size_t size) {
    return call(SYS_read, fd, word(buffer), static_cast<long>(size));
}
inline long write(int fd, const void* buffer, size_t size) {
    return call(SYS_write, fd, word(buffer), static_cast<long>(size));
}
inline int socket(int family, int type, int protocol) {
    return static_cast<int>(call(SYS_socket, family, type, protocol));
}
inline int bind(int fd, const void* address, socklen_t size) {
    return static_cast<int>(call(SYS_bind, fd, word(address), size));
}
inline int listen(int fd, int backlog) { return static_cast<int>(call(SYS_listen, fd, backlog)); }
inline int connect(int fd, const void* address, socklen_t size) {
    return static_cast<int>(call(SYS_connect, fd, word(address), size));
}
inline int accept4(int fd, void* address, socklen_t* size, int flags) {
    return static_cast<int>(call(SYS_accept4, fd, word(address), word(size), flags));
}
inline int getsockname(int fd, void* address, socklen_t* size) {
    return static_cast<int>(call(SYS_getsockname, fd, word(address), word(size)));
}
inline int getpeername(int fd, void* address, socklen_t* size) {
    return static_cast<int>(call(SYS_getpeername, fd, word(address), word(size)));
}
inline int getsockopt(int fd, int level, int name, void* value, socklen_t* size) {
    return static_cast<int>(call(SYS_getsockopt, fd, level, name, word(value), word(size)));
}
inline int setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
    return static_cast<int>(call(SYS_setsockopt, fd, level, name, word(value), size));
}
inline int shutdown(int fd, int how) { return static_cast<int>(call(SYS_shutdown, fd, how)); }
inline long recv(int fd, void* buffer, size_t size, int flags) {
    return call(SYS_recvfrom, fd, word(buffer), static_cast<long>(size), flags, 0, 0);
}
inline long send(int fd, const void* buffer, size_t size, int flags) {
    return call(SYS_sendto, fd, word(buffer), static_cast<long>(size), flags, 0, 0);
}
inline long recvmsg(int fd, msghdr* message, int flags) {
    return call(SYS_recvmsg, fd, word(message), flags);
}
inline long sendmsg(int fd, const msghdr* message, int flags) {
    return call(SYS_sendmsg, fd, word(message), flags);
}
inline int epoll_create(int flags) { return static_cast<int>(call(SYS_epoll_create1, flags)); }
inline int epoll_ctl(int set, int operation, int fd, epoll_event* event) {
    return static_cast<int>(call(SYS_epoll_ctl, set, operation, fd, word(event)));
}
inline int epoll_pwait(int set, epoll_event* events, int capacity, int milliseconds, const sigset_t* mask) {
    return static_cast<int>(call(SYS_epoll_pwait, set, word(events), capacity, milliseconds, word(mask), 8));
}
inline int ppoll(pollfd* fds, unsigned count, timespec* timeout, const sigset_t* mask) {
    return static_cast<int>(call(SYS_ppoll, word(fds), count, word(timeout), word(mask), 8));
}
/// poll(2) without waiting: what of `events` is true of `fd` now (POLLHUP, POLLERR and POLLNVAL always).
/// Where a signal is pending the kernel says EINTR even of a poll that does not wait: it is asked again.
inline int ready_now(int fd, int events) {
    // A signal that is pending ends even a poll that does not wait, if nothing is ready. That is no answer:
    // its handler has run by now, and the question is put again.
    for (;;) {
        pollfd one{fd, static_cast<short>(events), 0};
        timespec none{0, 0};
        const int result = ppoll(&one, 1, &none, nullptr);
        if (result != -EINTR)
            return result < 0 ? result : one.revents;
    }
}
inline void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset) {
    return reinterpret_cast<void*>(
        call(SYS_mmap, word(address), static_cast<long>(size), protection, flags, fd, offset));
}
inline bool mmap_failed(void* address) { return reinterpret_cast<uintptr_t>(address) >= uintptr_t(-4095); }
inline int munmap(void* address, size_t size) {
    return static_cast<int>(call(SYS_munmap, word(address), static_cast<long>(size)));
}
inline int madvise(void* address, size_t size, int advice) {
    return static_cast<int>(call(SYS_madvise, word(address), static_cast<long>(size), advice));
}
inline void sleep_ns(long nanoseconds) {
    timespec duration{0, nanoseconds};
    call(SYS_nanosleep, word(&duration), 0);
}

/// For the few calls that there is no way back without: makes one again, for some milliseconds at most, while
/// the kernel has no memory for it.
template <typename Call> int insisting(Call call) {
    constexpr int kAttempts = 20;
    int result = call();
    for (int i = 1; i < kAttempts && (result == -ENOMEM || result == -ENOBUFS || result == -EINTR); ++i) {
        if (i > kAttempts / 2)
            sleep_ns(200'000);
        result = call();
    }
    return result;
}

/// bpf(2), which filters for system calls forbid more often than any other that we make, and whose filter may
/// end the process for it: a process under a filter does not ask.
inline long bpf(long command, void* attributes, size_t size) {
    constexpr long kGetSeccomp = 21;
    if (call(SYS_prctl, kGetSeccomp) != 0)
        return -1;  // -EPERM
    return call(SYS_bpf, command, word(attributes), static_cast<long>(size));
}

}  // namespace

}  // namespace loopfast::sys
