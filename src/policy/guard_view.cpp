// See guard_view.h.
#include "policy/guard_view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/syscall.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace loopfast {

namespace {

/// How long a root that listens may take to answer.
constexpr int64_t kPatience = 10'000'000;

bool only_root_writes(int fd, mode_t kind, struct stat& status) {
    return sys::call(SYS_fstat, fd, sys::word(&status)) == 0 && status.st_uid == 0 &&
           (status.st_mode & S_IFMT) == kind && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

int open_published(uint64_t cookie) {
    const long directory = sys::call(SYS_openat, AT_FDCWD, sys::word(kGuardDirectory),
                                     O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return static_cast<int>(directory);
    struct stat status {};
    long file = -EPERM;
    if (only_root_writes(static_cast<int>(directory), S_IFDIR, status)) {
        char name[40];
        snprintf(name, sizeof name, kGuardFile, static_cast<unsigned long long>(cookie));
        file =
            sys::call(SYS_openat, directory, sys::word(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    }
    sys::close(static_cast<int>(directory));
    return static_cast<int>(file);
}

/// The descriptor in a message, or -1; no more than one is taken.
int receive_descriptor(int link) {
    char byte = 0;
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const long size = sys::recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const cmsghdr* const header = size >= 0 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
        header->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    int fd = -1;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

int ask_for_page() {
    const int link = sys::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (link < 0)
        return link;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path + 1, kGuardName, sizeof kGuardName - 1);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + sizeof kGuardName);
    int fd = -1;
    ucred owner{};
    socklen_t length = sizeof owner;
    // The name may be anybody's. The kernel says who listens behind it. (That there is no room for one more
    // who asks is nothing to wait for: it may be a stranger's name.)
    int result = sys::connect(link, &address, size);
    if (result == 0)
        result = sys::getsockopt(link, SOL_SOCKET, SO_PEERCRED, &owner, &length);
    if (result < 0 && result != -EAGAIN) {
        fd = result;
    } else if (result == 0 && owner.uid == 0) {
        pollfd one{link, POLLIN, 0};
        timespec patience{0, kPatience};
        constexpr int kMostSignals = 16;
        for (int i = 0; i < kMostSignals && sys::ppoll(&one, 1, &patience, nullptr) == -EINTR; ++i) {
        }
        fd = receive_descriptor(link);
    }
    sys::close(link);
    return fd;
}

const GuardPage* map_page(int fd, uint64_t cookie, void* place, int& error) {
    struct stat status {};
    if (!only_root_writes(fd, S_IFREG, status) || status.st_size < static_cast<off_t>(guard_mapping_size()))
        return nullptr;
    // Looked at where it does no harm first: at `place` there may be a page that others still read.
    void* const memory = sys::mmap(nullptr, guard_mapping_size(), PROT_READ, MAP_SHARED, fd, 0);
    if (sys::mmap_failed(memory)) {
        error = -ENOMEM;
        return nullptr;
    }
    const auto* page = static_cast<const GuardPage*>(memory);
    const bool good = page->magic == kGuardMagic && page->version == kGuardVersion &&
                      page->size == sizeof(GuardPage) && page->namespace_cookie == cookie &&
                      GuardPage::owner(page->word.load(std::memory_order_acquire)) != 0;
    if (good && place == nullptr)
        return page;
    sys::munmap(memory, guard_mapping_size());
    if (!good)
        return nullptr;
    void* const fixed = sys::mmap(place, guard_mapping_size(), PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
    if (!sys::mmap_failed(fixed))
        return static_cast<const GuardPage*>(fixed);
    error = -ENOMEM;
    return nullptr;
}

/// The word of a change that was waited for in vain.
std::atomic<uint64_t> given_up{0};

/// Runs `copy` until what it copied was not changed meanwhile. @return the word, or 0 if that did not happen:
/// the guard was stopped, or died, in the middle of a change.
template <typename Copy> uint64_t consistently(const GuardPage& page, Copy copy) {
    constexpr int kRounds = 1000;
    for (int round = 0; round < kRounds; ++round) {
        // Acquire pairs with the guard's release of an even number: what it counts is seen.
        const uint64_t before = page.word.load(std::memory_order_acquire);
        if (GuardPage::owner(before) == 0)
            return before | FUTEX_OWNER_DIED;  // never 0, though the page may be all zeros
        if (!GuardPage::being_changed(before)) {
            copy();
            // Orders the copy before the second look.
            std::atomic_thread_fence(std::memory_order_acquire);
            if (page.word.load(std::memory_order_relaxed) == before)
                return before;
        } else if (before == given_up.load(std::memory_order_relaxed)) {
            return 0;  // once is enough: nobody else waits for a guard that stands still
        } else if (round == kRounds - 1) {
            given_up.store(before, std::memory_order_relaxed);
        }
        if (round > 100)
            sys::sleep_ns(10'000);
        else
            pause_cpu();
    }
    return 0;
}

bool lists(const GuardPage& page, uint64_t cgroup) {
    const uint32_t count = page.cgroup_count;
    if (count == 0 || cgroup == 0)
        return count > kMostCgroups;
    if (count > kMostCgroups)
        return true;
    uint32_t low = 0;
    for (uint32_t high = count; low < high;) {
        const uint32_t middle = low + (high - low) / 2;
        if (page.cgroups[middle] < cgroup)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && page.cgroups[low] == cgroup;
}

}  // namespace

size_t guard_mapping_size() {
    constexpr size_t kPageSize = 4096;
    return (sizeof(GuardPage) + kPageSize - 1) & ~(kPageSize - 1);
}

uint64_t namespace_of(int socket) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    const int result =
        sys::insisting([&] { return sys::getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size); });
    return result == 0 ? cookie : result == -ENOMEM || result == -ENOBUFS ? kNamespaceUnknown : 0;
}

const GuardPage* map_guard(uint64_t namespace_cookie, void* place, int& error) {
    error = 0;
    if (namespace_cookie == 0)
        return nullptr;
    for (int (*const open)(uint64_t) : {open_published, +[](uint64_t) { return ask_for_page(); }}) {
        const int fd = open(namespace_cookie);
        if (fd < 0) {
            error = fd == -ENOMEM || fd == -ENOBUFS || fd == -EMFILE || fd == -ENFILE || fd == -EINTR ? fd
                                                                                                      : error;
            continue;
        }
        const GuardPage* const page = map_page(fd, namespace_cookie, place, error);
        sys::close(fd);
        if (page != nullptr)
            return page;
    }
    return nullptr;
}

GuardState read_guard(const GuardPage& page, uint64_t cgroup) {
    GuardState state;
    state.word = consistently(page, [&] {
        const bool by_group = lists(page, cgroup);
        state.objects = page.count != 0 || by_group;
        state.objection = page.count != 0 ? page.objections[0] : page.cgroup_objection;
        state.unseen = page.unseen;
    });
    state.alive = state.word == 0 || GuardPage::owner(state.word) != 0;
    if (state.word == 0) {
        state.objects = true;  // in doubt
        state.objection = {Kind::kNone, 0, "the guard is in the middle of a change"};
    }
    state.objection.text[kObjectionText - 1] = 0;
    return state;
}

bool read_guard(const GuardPage& page, Findings& findings) {
    const uint32_t before = findings.count;
    const uint64_t word = consistently(page, [&] {
        findings.count = before;
        for (uint32_t i = 0; i < page.count && i < Findings::kMost && findings.count < Findings::kMost; ++i) {
            Objection& copy = findings.list[findings.count++];
            copy = page.objections[i];
            copy.text[kObjectionText - 1] = 0;
        }
        findings.more = page.more;
    });
    return GuardPage::owner(word) != 0;
}

}  // namespace loopfast
