// See probe.h.
#include "winsock/probe.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace loopfast::winsock {

namespace {

using probe_detail::kPage;

struct Range {
    uintptr_t first;
    uintptr_t last;  ///< the last byte's page
    bool valid;
};
Range pages_of(const void* memory, size_t size) {
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t end = begin + (size - 1);
    return {begin & ~(kPage - 1), end & ~(kPage - 1), begin >= kPage && end >= begin};
}

bool page_can_be_read(uintptr_t page) {
    char byte;
    const iovec here{&byte, 1};
    const iovec there{reinterpret_cast<void*>(page), 1};
    return syscall(SYS_process_vm_readv, getpid(), &here, 1UL, &there, 1UL, 0UL) == 1;
}
/// An atomic addition of 0, by the kernel.
bool page_can_be_written(uintptr_t page) {
    int word = 0;
    return syscall(SYS_futex, &word, FUTEX_WAKE_OP_PRIVATE, 0, nullptr, page,
                   FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0)) >= 0;
}

/// Asks about a range at once where the kernel can (Linux 5.14), about each page where it cannot.
bool ask(const Range& range, bool write) {
    static std::atomic<bool> can_populate{true};
    if (can_populate.load(std::memory_order_relaxed)) {
        const int advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
        long result;
        do
            result = syscall(SYS_madvise, range.first, range.last - range.first + kPage, advice);
        while (result < 0 && errno == EINTR);
        if (result == 0)
            return true;
        if (errno == EFAULT || errno == ENOMEM)
            return false;
        // EINVAL: no permission, a kind of mapping that it does not take, or an old kernel.
    }
    for (uintptr_t page = range.first;; page += kPage) {
        if (!(write ? page_can_be_written(page) : page_can_be_read(page)))
            return false;
        if (page == range.last)
            return true;
    }
}

bool asked(const void* memory, size_t size, bool write) {
    if (size == 0)
        return true;
    const Range range = pages_of(memory, size);
    const int error = errno;
    const bool result = range.valid && ask(range, write);
    errno = error;
    return result;
}

}  // namespace

bool readable(const void* memory, size_t size) { return asked(memory, size, false); }
bool writable(void* memory, size_t size) { return asked(memory, size, true); }

namespace probe_detail {

namespace {
constexpr int kLooks = 8192;  // some hundred sends and receives
}  // namespace

constinit thread_local uintptr_t good_pages[kSlots] = {};
constinit thread_local int looks_left = kLooks;

bool ask_about_page(uintptr_t page, bool write) {
    if (looks_left < 0) {
        memset(good_pages, 0, sizeof good_pages);
        looks_left = kLooks;
    }
    const int error = errno;
    const bool good = ask({page, page, true}, write);
    errno = error;
    if (good)
        good_pages[page / kPage % kSlots] = page | (write ? 1U : 0U);
    return good;
}

}  // namespace probe_detail

}  // namespace loopfast::winsock
