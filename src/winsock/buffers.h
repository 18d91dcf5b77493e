// WSABUF arrays as iovecs, checked. The data pages are looked at as operations are asked for, as Windows
// does; only the first and last of each buffer, the attempt itself finds a hole in between.
#pragma once

#include <sys/uio.h>

#include "winsock/door.h"
#include "winsock/probe.h"

namespace loopfast::winsock {

class Buffers {
public:
    Buffers() = default;
    ~Buffers() {
        if (parts != small_)
            delete[] parts;
    }
    Buffers(const Buffers&) = delete;
    Buffers& operator=(const Buffers&) = delete;

    /// @return 0, WSAEINVAL (none) or WSAEFAULT.
    int take(const WSABUF* buffers, DWORD number) {
        if (number == 0)
            return WSAEINVAL;
        if (number > kMost || !readable_quickly(buffers, number * sizeof *buffers))
            return WSAEFAULT;
        if (number > kSmall)
            parts = new iovec[number];
        for (DWORD i = 0; i < number; ++i) {
            const WSABUF& buffer = buffers[i];
            parts[i] = {buffer.buf, buffer.len};
            total += buffer.len;
        }
        count = number;
        return 0;
    }
    /// Whether what is left can be written, or read.
    bool usable(bool written) const {
        for (unsigned i = first; i < count; ++i)
            if (!(written ? writable_quickly(parts[i].iov_base, parts[i].iov_len)
                          : readable_quickly(parts[i].iov_base, parts[i].iov_len)))
                return false;
        return true;
    }
    /// Forgets the first `size` bytes.
    void advance(size_t size) {
        done += size;
        while (count - first > 0 && size >= parts[first].iov_len)
            size -= parts[first++].iov_len;
        if (first < count) {
            parts[first].iov_base = static_cast<char*>(parts[first].iov_base) + size;
            parts[first].iov_len -= size;
        }
    }
    const iovec* rest() const { return parts + first; }
    unsigned rest_count() const { return count - first; }
    size_t rest_size() const { return total - done; }

    size_t total = 0;
    size_t done = 0;

private:
    static constexpr DWORD kSmall = 16;
    static constexpr DWORD kMost = 1024;  // what one sendmsg takes
    iovec small_[kSmall];
    iovec* parts = small_;
    unsigned first = 0;
    unsigned count = 0;
};

}  // namespace loopfast::winsock
