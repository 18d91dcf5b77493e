// Calls that must not find our thread in the process (wait/steward.h): the kernel refuses some to a process
// with several threads, and a process whose main thread ended lives until the last other one does.
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <threads.h>

#include "base/apart.h"
#include "base/syscall.h"
#include "posix/posix.h"
#include "posix/restrictions.h"
#include "wait/steward.h"

namespace loopfast {

namespace {

/// Makes a call that the kernel refuses (EINVAL) to a process with several threads.
template <typename Call> int alone(Call call) {
    const int error = errno;
    bool ended = stop_steward();
    if (apart_has_been_at_work()) {
        ended = true;
        finish_apart();
    }
    // A thread that has ended is counted until the kernel has taken it down.
    constexpr int kMostRounds = 100;
    int result = call();
    for (int round = 0; round < kMostRounds && ended && result < 0 && errno == EINVAL; ++round) {
        errno = error;
        sys::sleep_ns(1'000'000);
        result = call();
    }
    return result;
}

}  // namespace

LOOPFAST_PUBLIC int unshare(int flags) noexcept {
    return alone([&] {
        if ((flags & CLONE_FILES) != 0)
            before_tables_part();
        return real::next<int (*)(int)>("unshare")(flags);
    });
}

LOOPFAST_PUBLIC int setns(int fd, int type) noexcept {
    return alone([&] { return real::next<int (*)(int, int)>("setns")(fd, type); });
}

// Not noexcept: the frames below are unwound.
LOOPFAST_PUBLIC void pthread_exit(void* value) {
    if (sys::gettid() == sys::getpid())
        retire_steward();
    real::next<void (*)(void*)>("pthread_exit")(value);
    __builtin_unreachable();
}
LOOPFAST_PUBLIC void thrd_exit(int value) {
    if (sys::gettid() == sys::getpid())
        retire_steward();
    real::next<void (*)(int)>("thrd_exit")(value);
    __builtin_unreachable();
}

}  // namespace loopfast
