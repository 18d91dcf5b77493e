// Whether memory that a program names can be read or written: where Windows says WSAEFAULT we would crash.
//
// The kernel is asked: MADV_POPULATE_READ and MADV_POPULATE_WRITE answer without changing a byte, whatever
// other threads do with the memory. That costs a system call, too much for each send and receive, so those
// use the quick variants: pages that were found good are remembered, a few per thread and for a limited
// number of uses. A page that is unmapped just after it was remembered can then still kill the program, as a
// dangling pointer does anyhow.
#pragma once

#include <cstddef>

namespace loopfast::winsock {

bool readable(const void* memory, size_t size);
bool writable(void* memory, size_t size);
bool readable_quickly(const void* memory, size_t size);
bool writable_quickly(void* memory, size_t size);

template <typename Type> bool readable(const Type* what) { return readable(what, sizeof *what); }
template <typename Type> bool writable(Type* what) { return writable(what, sizeof *what); }
template <typename Type> bool writable_or_null(Type* what) {
    return what == nullptr || writable(what, sizeof *what);
}
template <typename Type> bool writable_quickly(Type* what) { return writable_quickly(what, sizeof *what); }

}  // namespace loopfast::winsock
