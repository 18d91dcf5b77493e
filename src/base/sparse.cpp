// See sparse.h.
#include "base/sparse.h"

#include <sys/mman.h>

#include "base/syscall.h"

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

namespace loopfast {

namespace {

constexpr int kBoth = PROT_READ | PROT_WRITE;

/// Pages that nobody may touch are not made when they are mapped, and later only those that are touched.
void* map_locked(size_t size, int flags, int fd) {
    void* const memory = sys::mmap(nullptr, size, PROT_NONE, flags, fd, 0);
    if (sys::mmap_failed(memory))
        return nullptr;
    const long address = sys::word(memory);
    const long length = static_cast<long>(size);
    // A filter of system calls may know the older one alone.
    if ((sys::call(SYS_mlock2, address, length, MLOCK_ONFAULT) < 0 &&
         sys::call(SYS_munlock, address, length) < 0) ||
        sys::call(SYS_mprotect, address, length, kBoth) < 0) {
        sys::munmap(memory, size);
        return nullptr;
    }
    return memory;
}

void* map(void* place, size_t size, int flags, int fd) {
    if (!future_is_locked.load(std::memory_order_relaxed)) {
        const int where = place != nullptr ? MAP_FIXED : 0;
        void* const memory = sys::mmap(place, size, kBoth, flags | where, fd, 0);
        return sys::mmap_failed(memory) ? nullptr : memory;
    }
    // What is replaced counts no more for the limit of locked memory, which has to hold both for a moment.
    if (place != nullptr)
        sys::call(SYS_munlock, sys::word(place), static_cast<long>(size));
    void* const memory = map_locked(size, flags, fd);
    if (memory == nullptr || place == nullptr)
        return memory;
    // Another thread may still be in what is replaced: there must be no moment in which nobody may touch it.
    // The kernel moves under the lock that a fault takes.
    const long length = static_cast<long>(size);
    const long moved = sys::call(SYS_mremap, sys::word(memory), length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
                                 sys::word(place));
    if (moved == sys::word(place))
        return place;
    sys::munmap(memory, size);
    return nullptr;
}

}  // namespace

void* map_sparse(void* place, size_t size, int flags, int fd) {
    void* const memory = map(place, size, flags, fd);
    if (memory != nullptr)
        sys::call(SYS_madvise, sys::word(memory), static_cast<long>(size), MADV_DONTDUMP);
    return memory;
}

}  // namespace loopfast
