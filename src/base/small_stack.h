// The stack of a signal handler is often as small as 8 KiB, of which the kernel's own frame takes up to 3.5,
// and nothing tells when it has run over. What needs much more is left to a later call.
#pragma once

#include <signal.h>

#include "base/syscall.h"

namespace loopfast {

/// Whether this is an alternate signal stack with less left than a look at the filters may take. A system
/// call: not for the data path.
inline bool stack_is_small() {
    constexpr auto kNeeded = 24 * 1024;
    stack_t now{};
    return sys::call(SYS_sigaltstack, 0, sys::word(&now)) == 0 && (now.ss_flags & SS_ONSTACK) != 0 &&
           static_cast<char*>(__builtin_frame_address(0)) - static_cast<char*>(now.ss_sp) < kNeeded;
}

}  // namespace loopfast
