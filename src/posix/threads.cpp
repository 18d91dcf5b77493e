// Calls that must not find our thread in the process (wait/steward.h): the kernel refuses some to a process
// with several threads, and a process whose main thread ended lives until the last other one does.
#include <pthread.h>
#include <sched.h>

#include "posix/posix.h"
#include "wait/steward.h"

namespace loopfast {

LOOPFAST_PUBLIC int unshare(int flags) noexcept {
    stop_steward();
    return real::next<int (*)(int)>("unshare")(flags);
}

LOOPFAST_PUBLIC int setns(int fd, int type) noexcept {
    stop_steward();
    return real::next<int (*)(int, int)>("setns")(fd, type);
}

// Not noexcept: the frames below are unwound.
LOOPFAST_PUBLIC void pthread_exit(void* value) {
    if (sys::gettid() == sys::getpid())
        retire_steward();
    real::next<void (*)(void*)>("pthread_exit")(value);
    __builtin_unreachable();
}

}  // namespace loopfast
