// System calls by number that only older machines have (x86-64). Others, arm64 among them, have but the newer
// ones, which do the same.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace differential {

inline long poll_by_number(pollfd* entries, unsigned long count, int milliseconds) {
#ifdef SYS_poll
    return ::syscall(SYS_poll, entries, count, milliseconds);
#else
    timespec time{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
    return ::syscall(SYS_ppoll, entries, count, milliseconds < 0 ? nullptr : &time, nullptr, 8L);
#endif
}

inline long select_by_number(int count, fd_set* reads, timeval* time) {
#ifdef SYS_select
    return ::syscall(SYS_select, count, reads, nullptr, nullptr, time);
#else
    timespec limit{time->tv_sec, time->tv_usec * 1000};
    return ::syscall(SYS_pselect6, count, reads, nullptr, nullptr, &limit, nullptr);
#endif
}

inline long epoll_wait_by_number(int set, epoll_event* events, int room, int milliseconds) {
#ifdef SYS_epoll_wait
    return ::syscall(SYS_epoll_wait, set, events, room, milliseconds);
#else
    return ::syscall(SYS_epoll_pwait, set, events, room, milliseconds, nullptr, 8L);
#endif
}

inline long fork_by_number() {
#ifdef SYS_fork
    return ::syscall(SYS_fork);
#else
    return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0L);
#endif
}

}  // namespace differential
