// Where this thread runs: decides whether spinning makes sense.
#pragma once

#include <sched.h>
#include <sys/rseq.h>

#include <cstdint>

#include "base/syscall.h"

namespace loopfast {

/// The processor this thread runs on, from the area that the kernel keeps for restartable sequences: one
/// load, no system call. It may be stale by the time it is used; it is only a hint.
inline int current_cpu() {
    if (__rseq_size != 0) [[likely]] {
        const auto* area = reinterpret_cast<const volatile struct rseq*>(
            static_cast<const char*>(__builtin_thread_pointer()) + __rseq_offset);
        return static_cast<int>(area->cpu_id);
    }
    return sched_getcpu();
}

}  // namespace loopfast
