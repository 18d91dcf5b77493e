// Children and threads that are made without fork() and pthread_create(): clone(), _Fork(), and what makes
// two descriptor tables out of one, or one out of two.
//
// Our table of descriptors lies in memory, and is right as long as memory and descriptors are shared together
// or copied together. A child that shares one and not the other, or a thread that gets a table of its own,
// makes it wrong for one of them. What such a process has is on the kernel lane from then on, where nothing
// depends on it.
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "policy/policy.h"
#include "posix/posix.h"
#include "posix/restrictions.h"

namespace loopfast {

namespace {

using Function = int (*)(void*);
using Clone = int (*)(Function, void*, int, void*, pid_t*, void*, pid_t*);

struct Beginning {
    Function function;
    void* argument;
};

/// The first thing on the child's stack. Its memory is a copy of ours, with what was on our stack.
int begin_child(void* beginning) {
    const Beginning chosen = *static_cast<Beginning*>(beginning);
    forked_in_child();
    const int status = chosen.function(chosen.argument);
    // With this thread ends the process, but for what other threads the program has.
    end_main_thread();
    return status;
}

}  // namespace

bool is_alone() {
    // Changes nothing, and says whether there are other threads. Under a filter for system calls it might end
    // the process.
    return sys::call(SYS_prctl, PR_GET_SECCOMP) == 0 && sys::call(SYS_unshare, CLONE_THREAD) == 0;
}

void before_tables_part() {
    if (!in_borrowed_memory() && had_streams() && !setups_forbidden() && !is_alone())
        retreat();
}

void before_clone(uint64_t flags) {
    if ((flags & CLONE_FILES) != 0 && (flags & CLONE_THREAD) == 0 && !in_borrowed_memory())
        retreat();
}

LOOPFAST_PUBLIC pid_t _Fork() noexcept {
    return like_fork([] { return real::next<pid_t (*)()>("_Fork")(); });
}

/// clone(2) under its own name: sched.h declares it with an ellipsis, see loopfast_syscall.
LOOPFAST_PUBLIC int loopfast_clone(Function function, void* stack, int flags, void* argument, pid_t* parent,
                                   void* storage, pid_t* child) noexcept __asm__("clone");

LOOPFAST_PUBLIC int loopfast_clone(Function function, void* stack, int flags, void* argument, pid_t* parent,
                                   void* storage, pid_t* child) noexcept {
    const auto next = real::next<Clone>("clone");
    before_clone(static_cast<uint64_t>(flags));
    if ((flags & CLONE_VM) != 0 || function == nullptr || stack == nullptr)
        return next(function, stack, flags, argument, parent, storage, child);
    Beginning beginning{function, argument};
    return like_fork([&] { return next(begin_child, stack, flags, &beginning, parent, storage, child); });
}

}  // namespace loopfast
