// mlockall and munlockall: the kernel does them, and the library learns what its own mappings will cost from
// now on (base/sparse.h).
#include <sys/mman.h>

#include "base/sparse.h"
#include "posix/posix.h"

namespace loopfast {

// Each call says anew whether the future is locked; a failed one says nothing.
void note_mlockall(int flags) {
    future_is_locked.store((flags & MCL_FUTURE) != 0, std::memory_order_relaxed);
}

LOOPFAST_PUBLIC int mlockall(int flags) noexcept {
    const int result = real::next<int (*)(int)>("mlockall")(flags);
    if (result == 0)
        note_mlockall(flags);
    return result;
}

LOOPFAST_PUBLIC int munlockall() noexcept {
    const int result = real::next<int (*)()>("munlockall")();
    if (result == 0)
        note_mlockall(0);
    return result;
}

}  // namespace loopfast
