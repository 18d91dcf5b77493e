// A process that gives up rights after its start. Once it has a filter of its own for system calls, a call of
// ours that it never makes by itself may end it. So before that every connection goes back to the kernel
// lane, where we make none, and nothing is set up any more.
//
// Filters are installed through prctl(), or through the seccomp system call, which libraries make without
// libc's help; but a process without privilege must renounce new ones first, and does that through prctl().
#include "posix/restrictions.h"

#include <stdarg.h>
#include <sys/prctl.h>

#include "policy/policy.h"
#include "posix/posix.h"
#include "wait/steward.h"

namespace loopfast {

void retreat() {
    if (setups_forbidden())
        return;
    forbid_setups();
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd))
        if (Stream* const stream = find_stream(fd))
            part_with(*stream, fd, Reason::kRestricted);
    retire_steward();
}

LOOPFAST_PUBLIC int prctl(int option, ...) noexcept {
    va_list list;
    va_start(list, option);
    unsigned long arguments[4];
    for (auto& argument : arguments)
        argument = va_arg(list, unsigned long);
    va_end(list);
    if (((option == PR_SET_NO_NEW_PRIVS && arguments[0] != 0) || option == PR_SET_SECCOMP) &&
        !in_borrowed_memory())
        retreat();
    return returned<int>(sys::call(SYS_prctl, option, static_cast<long>(arguments[0]),
                                   static_cast<long>(arguments[1]), static_cast<long>(arguments[2]),
                                   static_cast<long>(arguments[3])));
}

}  // namespace loopfast
