// See interest.h.
#include "wait/interest.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/syscall.h"

namespace loopfast {

void* zeroed_pages(size_t size) {
    void* const memory =
        sys::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return sys::mmap_failed(memory) ? nullptr : memory;
}

Interest* InterestTable::make(int fd) {
    const auto number = static_cast<uint32_t>(fd);
    if (fd < 0 || number / kBlock >= kBlocks)
        return nullptr;
    if (blocks_ == nullptr)
        blocks_ = static_cast<Interest**>(zeroed_pages(sizeof(Interest*) * kBlocks));
    if (blocks_ == nullptr)
        return nullptr;
    Interest*& block = blocks_[number / kBlock];
    if (block == nullptr)
        block = static_cast<Interest*>(zeroed_pages(sizeof(Interest) * kBlock));
    return block != nullptr ? &block[number % kBlock] : nullptr;
}

void InterestTable::release() {
    if (blocks_ == nullptr)
        return;
    for (uint32_t i = 0; i < kBlocks; ++i)
        if (blocks_[i] != nullptr)
            sys::munmap(blocks_[i], sizeof(Interest) * kBlock);
    sys::munmap(blocks_, sizeof(Interest*) * kBlocks);
    blocks_ = nullptr;
}

long interest_in_kernel(int set_fd, int fd) {
    char path[48] = "/proc/self/fdinfo/";
    char* end = path + strlen(path);
    char digits[12];
    int count = 0;
    for (int rest = set_fd; count == 0 || rest != 0; rest /= 10)
        digits[count++] = static_cast<char>('0' + rest % 10);
    while (count > 0)
        *end++ = digits[--count];
    *end = 0;
    const long info = sys::call(SYS_openat, AT_FDCWD, sys::word(path), O_RDONLY | O_CLOEXEC, 0);
    if (info < 0)
        return -1;
    // Lines "tfd:  8 events: 80000019 data: ..."; read by the byte into two numbers, since a line may lie
    // across two pieces.
    long found = -1;
    char piece[1024];
    char word[16] = {};
    unsigned length = 0;
    enum { kElse, kDescriptor, kEvents } next = kElse;
    long descriptor = -1;
    for (long size; found < 0 && (size = sys::read(static_cast<int>(info), piece, sizeof piece)) > 0;) {
        for (long i = 0; i < size && found < 0; ++i) {
            const char c = piece[i];
            if (c != ' ' && c != '\n' && c != '\t') {
                if (length < sizeof word - 1)
                    word[length++] = c;
                continue;
            }
            if (length == 0)
                continue;
            word[length] = 0;
            length = 0;
            if (next == kDescriptor)
                descriptor = strtol(word, nullptr, 10);
            else if (next == kEvents && descriptor == fd)
                found = strtol(word, nullptr, 16);
            next = strcmp(word, "tfd:") == 0 ? kDescriptor : strcmp(word, "events:") == 0 ? kEvents : kElse;
        }
    }
    sys::close(static_cast<int>(info));
    return found;
}

}  // namespace loopfast
