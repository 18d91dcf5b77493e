// The start of a process, its forks, and its end.
#include <pthread.h>
#include <unistd.h>

#include "base/sparse.h"
#include "policy/policy.h"
#include "policy/verdict.h"
#include "posix/jumps.h"
#include "posix/posix.h"
#include "posix/restrictions.h"
#include "posix/rings.h"
#include "wait/early_sets.h"
#include "wait/epoll_set.h"
#include "wait/steward.h"

namespace loopfast {

void forked_in_child() {
    after_fork_in_child();
    fault_handlers_forked();
    future_is_locked.store(false, std::memory_order_relaxed);  // a child's memory is not locked
    verdict_after_fork_in_child();
}

namespace {

[[gnu::constructor(101)]] void start() {
    real::resolve();
    load_policy();
    connect_sets();
    if (any_opted_in())
        track_sets();
    connect_steward();
    // pthread_atfork rather than a wrapper around fork: daemon(), forkpty() and others fork inside libc.
    pthread_atfork(before_fork, after_fork_in_parent, forked_in_child);
    resolve_raw();
    resolve_jumps();
}

[[gnu::destructor]] void end() {
    finish_outputs([](const Stream&) { return true; }, true);
}

}  // namespace

void end_main_thread() {
    retire_steward();
    if (had_streams() && !setups_forbidden() && is_alone())
        end();
}

// The end without destructors. What peers left is on its way all the same.
LOOPFAST_PUBLIC __attribute__((noreturn)) void _exit(int status) {
    end();
    for (;;)
        sys::call(SYS_exit_group, status);
}
LOOPFAST_PUBLIC __attribute__((noreturn)) void _Exit(int status) noexcept { _exit(status); }

}  // namespace loopfast
