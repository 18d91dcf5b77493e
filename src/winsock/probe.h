// Whether memory that a program names can be read or written: where Windows says WSAEFAULT we would crash.
//
// The kernel is asked: MADV_POPULATE_READ and MADV_POPULATE_WRITE answer without changing a byte, whatever
// other threads do with the memory. That costs a system call, too much for each send and receive, so those
// use the quick variants: pages that were found good are remembered, a few per thread and for a limited
// number of looks. A page that is unmapped just after it was remembered can then still kill the program, as a
// dangling pointer does anyhow.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loopfast::winsock {

bool readable(const void* memory, size_t size);
bool writable(void* memory, size_t size);

namespace probe_detail {

constexpr uintptr_t kPage = 4096;
/// By page number: a page found good, its lowest bit set if for writing as well. No page is 0.
constexpr unsigned kSlots = 256;
extern constinit thread_local uintptr_t good_pages[kSlots];
/// How many looks are left until all is forgotten.
extern constinit thread_local int looks_left;

/// Asks, and remembers.
bool ask_about_page(uintptr_t page, bool write);

inline bool is_good(uintptr_t page, bool write) {
    const uintptr_t known = good_pages[page / kPage % kSlots];
    if (--looks_left >= 0 && (known == (page | 1) || (!write && known == page))) [[likely]]
        return true;
    return ask_about_page(page, write);
}
inline bool quickly(const void* memory, size_t size, bool write) {
    if (size == 0)
        return true;
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t end = begin + (size - 1);
    const uintptr_t first = begin & ~(kPage - 1);
    const uintptr_t last = end & ~(kPage - 1);
    return begin >= kPage && end >= begin && is_good(first, write) && (first == last || is_good(last, write));
}

}  // namespace probe_detail

inline bool readable_quickly(const void* memory, size_t size) {
    return probe_detail::quickly(memory, size, false);
}
inline bool writable_quickly(void* memory, size_t size) { return probe_detail::quickly(memory, size, true); }

template <typename Type> bool readable(const Type* what) { return readable(what, sizeof *what); }
template <typename Type> bool writable(Type* what) { return writable(what, sizeof *what); }
template <typename Type> bool writable_or_null(Type* what) {
    return what == nullptr || writable(what, sizeof *what);
}
template <typename Type> bool writable_quickly(Type* what) { return writable_quickly(what, sizeof *what); }

}  // namespace loopfast::winsock
