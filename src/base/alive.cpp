// See alive.h.
#include "base/alive.h"
#include "base/ready.h"

#include <errno.h>
#include <poll.h>

#include "base/syscall.h"

namespace loopfast {

bool is_gone(int id) {
    // Signals sent to a thread's id reach it whatever its process.
    if (sys::kill(id, 0) == -ESRCH)
        return true;
    // A pidfd is readable once its process has ended, waited for or not. There is none for a thread that is
    // not its process's first, and such a one is never left unwaited for: then it lives, and so on a kernel
    // that has no pidfds (before 5.3).
    const int process = static_cast<int>(sys::call(SYS_pidfd_open, id, 0));
    if (process < 0)
        return false;
    const int ready = ready_now(process, POLLIN);
    sys::close(process);
    return ready > 0 && (ready & POLLIN) != 0;
}

}  // namespace loopfast
