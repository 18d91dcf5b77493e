// The functions behind the ones we interpose: libc's, or those of another library that was preloaded after
// us. They are used wherever a call is passed on unchanged, so that it stays the cancellation point, the
// errno and the stack of wrappers that it was.
//
// Each pointer starts at a stub that looks all of them up; so a call made before our constructor ran, by
// another library's constructor, works as well.
#pragma once

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace loopfast::real {

// clang-format off
#define LOOPFAST_REAL_FUNCTIONS(X)                                                                           \
    X(ssize_t, read, (int, void*, size_t))                                                                   \
    X(ssize_t, write, (int, const void*, size_t))                                                            \
    X(ssize_t, readv, (int, const iovec*, int))                                                              \
    X(ssize_t, writev, (int, const iovec*, int))                                                             \
    X(ssize_t, preadv2, (int, const iovec*, int, off_t, int))                                                \
    X(ssize_t, pwritev2, (int, const iovec*, int, off_t, int))                                               \
    X(ssize_t, recv, (int, void*, size_t, int))                                                              \
    X(ssize_t, recvfrom, (int, void*, size_t, int, sockaddr*, socklen_t*))                                   \
    X(ssize_t, recvmsg, (int, msghdr*, int))                                                                 \
    X(int, recvmmsg, (int, mmsghdr*, unsigned, int, timespec*))                                              \
    X(ssize_t, send, (int, const void*, size_t, int))                                                        \
    X(ssize_t, sendto, (int, const void*, size_t, int, const sockaddr*, socklen_t))                          \
    X(ssize_t, sendmsg, (int, const msghdr*, int))                                                           \
    X(int, sendmmsg, (int, mmsghdr*, unsigned, int))                                                         \
    X(ssize_t, sendfile, (int, int, off_t*, size_t))                                                         \
    X(ssize_t, splice, (int, off64_t*, int, off64_t*, size_t, unsigned))                                     \
    X(int, connect, (int, const sockaddr*, socklen_t))                                                       \
    X(int, accept, (int, sockaddr*, socklen_t*))                                                             \
    X(int, accept4, (int, sockaddr*, socklen_t*, int))                                                       \
    X(int, listen, (int, int))                                                                               \
    X(int, shutdown, (int, int))                                                                             \
    X(int, getsockopt, (int, int, int, void*, socklen_t*))                                                   \
    X(int, setsockopt, (int, int, int, const void*, socklen_t))                                              \
    X(int, ioctl, (int, unsigned long, ...))                                                                 \
    X(int, fcntl, (int, int, ...))                                                                           \
    X(int, fcntl64, (int, int, ...))                                                                         \
    X(int, close, (int))                                                                                     \
    X(int, close_range, (unsigned, unsigned, int))                                                           \
    X(int, dup, (int))                                                                                       \
    X(int, dup2, (int, int))                                                                                 \
    X(int, dup3, (int, int, int))                                                                            \
    X(int, poll, (pollfd*, nfds_t, int))                                                                     \
    X(int, ppoll, (pollfd*, nfds_t, const timespec*, const sigset_t*))                                       \
    X(int, select, (int, fd_set*, fd_set*, fd_set*, timeval*))                                               \
    X(int, pselect, (int, fd_set*, fd_set*, fd_set*, const timespec*, const sigset_t*))                      \
    X(int, epoll_create, (int))                                                                              \
    X(int, epoll_create1, (int))                                                                             \
    X(int, epoll_ctl, (int, int, int, epoll_event*))                                                         \
    X(int, epoll_wait, (int, epoll_event*, int, int))                                                        \
    X(int, epoll_pwait, (int, epoll_event*, int, int, const sigset_t*))                                      \
    X(int, epoll_pwait2, (int, epoll_event*, int, const timespec*, const sigset_t*))                         \
    X(int, getrlimit, (int, rlimit*))                                                                        \
    X(int, setrlimit, (int, const rlimit*))                                                                  \
    X(int, prlimit, (pid_t, int, const rlimit*, rlimit*))                                                    \
    X(int, fclose, (FILE*))                                                                                  \
    X(FILE*, fdopen, (int, const char*))                                                                     \
    X(int, vdprintf, (int, const char*, va_list))                                                            \
    X(int, __vdprintf_chk, (int, int, const char*, va_list))                                                 \
    X(int, sigaction, (int, const struct sigaction*, struct sigaction*))                                     \
    X(sighandler_t, signal, (int, sighandler_t))                                                             \
    X(int, sigprocmask, (int, const sigset_t*, sigset_t*))                                                   \
    X(int, pthread_sigmask, (int, const sigset_t*, sigset_t*))                                               \
    X(int, sigsuspend, (const sigset_t*))
// clang-format on

#define LOOPFAST_DECLARE_REAL(result, name, parameters) extern result(*name) parameters;
LOOPFAST_REAL_FUNCTIONS(LOOPFAST_DECLARE_REAL)
#undef LOOPFAST_DECLARE_REAL

/// Looks all of them up. Idempotent; the stubs call it too.
void resolve();

/// The address of the next definition of `name` after this library's, or nullptr.
void* next_symbol(const char* name);
template <typename Function> Function next(const char* name) {
    return reinterpret_cast<Function>(next_symbol(name));
}

}  // namespace loopfast::real
