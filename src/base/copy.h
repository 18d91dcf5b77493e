// A copy that survives a bad pointer. Where the kernel answers EFAULT, a plain memcpy would kill the
// program; so the copy between a program's buffer and a ring is a leaf routine of our own, whose faults the
// handler in posix/fault.cpp recognises by their program counter and turns into a return value.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace loopfast {

extern "C" {
/// Copies `size` bytes. To be called through safe_copy(). @return 0, or 1 when one of the two ranges could
/// not be accessed; then a prefix may have been copied.
int loopfast_copy(void* to, const void* from, size_t size) __attribute__((visibility("hidden")));
/// The routine's code, and where to continue after a fault in it.
extern const char loopfast_copy_begin[] __attribute__((visibility("hidden")));
extern const char loopfast_copy_end[] __attribute__((visibility("hidden")));
extern const char loopfast_copy_fault[] __attribute__((visibility("hidden")));
}

/// The handler is never called while the thread has its signal blocked: the kernel ends the process instead.
/// posix/masks.cpp sees to it that none has, and says so here, once for each thread as a rule.
inline thread_local bool faults_reach_handler = false;
/// Release (install_fault_handlers, posix/fault.cpp) pairs with the acquire below: who finds it finds the
/// handlers installed and masks_translated set.
inline std::atomic<void (*)()> free_faults{nullptr};

[[gnu::noinline, gnu::cold]] inline void let_faults_reach_handler() {
    if (void (*const free)() = free_faults.load(std::memory_order_acquire); free != nullptr) {
        faults_reach_handler = true;  // first: it may find that they cannot
        free();
    }
}

inline int safe_copy(void* to, const void* from, size_t size) {
    if (!faults_reach_handler) [[unlikely]]
        let_faults_reach_handler();
    return loopfast_copy(to, from, size);
}

/// True when `counter`, a program counter at a fault, lies within the copy.
inline bool in_copy(uintptr_t counter) {
    return counter >= reinterpret_cast<uintptr_t>(loopfast_copy_begin) &&
           counter < reinterpret_cast<uintptr_t>(loopfast_copy_end);
}

}  // namespace loopfast
