// See interest.h.
#include "wait/interest.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/sparse.h"
#include "base/syscall.h"
#include "policy/policy.h"

namespace loopfast {

void* zeroed_pages(size_t size) {
    return map_sparse(nullptr, size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
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
    if (number / kBlock >= blocks_end_)
        blocks_end_ = number / kBlock + 1;
    return block != nullptr ? &block[number % kBlock] : nullptr;
}

void InterestTable::release() {
    if (blocks_ == nullptr)
        return;
    for (uint32_t i = 0; i < blocks_end_; ++i)
        if (blocks_[i] != nullptr)
            sys::munmap(blocks_[i], sizeof(Interest) * kBlock);
    sys::munmap(blocks_, sizeof(Interest*) * kBlocks);
    blocks_ = nullptr;
    blocks_end_ = 0;
}

namespace {

void append_number(char* path, int number) {
    char* end = path + strlen(path);
    char digits[12];
    int count = 0;
    for (int rest = number; count == 0 || rest != 0; rest /= 10)
        digits[count++] = static_cast<char>('0' + rest % 10);
    while (count > 0)
        *end++ = digits[--count];
    *end = 0;
}

}  // namespace

bool made_ready_by_noted_calls(int fd) {
    struct stat status {};
    if (setups_forbidden() || sys::call(SYS_fstat, fd, sys::word(&status)) < 0)
        return false;
    if (S_ISFIFO(status.st_mode))
        return true;
    if (S_ISSOCK(status.st_mode)) {
        int family = 0;
        socklen_t size = sizeof family;
        return sys::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 &&
               (family == AF_INET || family == AF_INET6 || family == AF_UNIX);
    }
    char path[48] = "/proc/self/fd/";
    append_number(path, fd);
    constexpr char kEvent[] = "anon_inode:[eventfd]";
    constexpr char kTimer[] = "anon_inode:[timerfd]";
    char target[sizeof kEvent] = {};
    const long length =
        sys::call(SYS_readlinkat, AT_FDCWD, sys::word(path), sys::word(target), sizeof target - 1);
    return length > 0 && (strcmp(target, kEvent) == 0 || strcmp(target, kTimer) == 0);
}

bool each_entry_in_kernel(int set_fd, EntryVisit visit, void* argument) {
    char path[48] = "/proc/self/fdinfo/";
    append_number(path, set_fd);
    const long info = sys::call(SYS_openat, AT_FDCWD, sys::word(path), O_RDONLY | O_CLOEXEC, 0);
    if (info < 0)
        return false;
    // Lines "tfd:  8 events: 80000019 data: 8 pos: ..."; taken by the byte into words, since a line may lie
    // across two pieces.
    char piece[1024];
    char word[24] = {};
    unsigned length = 0;
    enum { kElse, kDescriptor, kEvents, kData } next = kElse;
    int fd = -1;
    uint32_t events = 0;
    for (long size; (size = sys::read(static_cast<int>(info), piece, sizeof piece)) > 0;) {
        for (long i = 0; i < size; ++i) {
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
                fd = static_cast<int>(strtol(word, nullptr, 10));
            else if (next == kEvents)
                events = static_cast<uint32_t>(strtoul(word, nullptr, 16));
            else if (next == kData)
                visit(argument, fd, events, strtoull(word, nullptr, 16));
            next = strcmp(word, "tfd:") == 0      ? kDescriptor
                   : strcmp(word, "events:") == 0 ? kEvents
                   : strcmp(word, "data:") == 0   ? kData
                                                  : kElse;
        }
    }
    sys::close(static_cast<int>(info));
    return true;
}

long interest_in_kernel(int set_fd, int fd) {
    struct Wanted {
        int fd;
        long events;
    } wanted{fd, -1};
    each_entry_in_kernel(
        set_fd,
        [](void* argument, int number, uint32_t events, uint64_t) {
            auto& one = *static_cast<Wanted*>(argument);
            if (number == one.fd)
                one.events = events;
        },
        &wanted);
    return wanted.events;
}

}  // namespace loopfast
