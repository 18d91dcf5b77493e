// What a descriptor is ready for, also where the kernel refuses to poll even one: it takes no more entries
// than RLIMIT_NOFILE allows, and a program that wants no more descriptors sets that to 0.
#pragma once

#include "base/syscall.h"

namespace loopfast {

/// The same by a hidden epoll set. -EINVAL when there is none.
int ready_by_set(int fd, int events);

/// poll(2) without waiting, see sys::ready_now().
inline int ready_now(int fd, int events) {
    const int ready = sys::ready_now(fd, events);
    return ready == -EINVAL ? ready_by_set(fd, events) : ready;
}

/// The program is about to allow itself no descriptors: the set is made while it can be.
void prepare_ready_set();

/// In the child of a fork: the set is the parent's as well.
void ready_set_after_fork_in_child();

}  // namespace loopfast
