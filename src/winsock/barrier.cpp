// See barrier.h.
#include "winsock/barrier.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace loopfast::winsock {

std::atomic<bool> one_sided_fences{false};

namespace {

bool membarrier(int command) {
    const int error = errno;
    const bool good = syscall(SYS_membarrier, command, 0, 0) == 0;
    errno = error;
    return good;
}

__attribute__((constructor)) void register_once() {
    one_sided_fences.store(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED), std::memory_order_relaxed);
}

}  // namespace

void heavy_fence() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!one_sided_fences.load(std::memory_order_relaxed) || membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED))
        return;
    // A child of fork may have to register anew.
    if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) && membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED))
        return;
    // The program has forbidden itself the call. From now on all fence for themselves; a thread that was just
    // passing a light one has its store out of its processor long before this is over.
    one_sided_fences.store(false, std::memory_order_seq_cst);
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
}

}  // namespace loopfast::winsock
