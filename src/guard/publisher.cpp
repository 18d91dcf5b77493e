// See publisher.h.
#include "guard/publisher.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "base/apart.h"
#include "cli/failure.h"
#include "policy/guard_view.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace loopfast::guard {

using cli::Failure;
using cli::kFailed;

namespace {

[[noreturn]] void fail(const std::string& what) {
    throw Failure(kFailed, fmt::format("{}: {}", what, strerror(errno)));
}

/// The namespace that we are in, as any socket tells.
uint64_t own_namespace() {
    const int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const uint64_t cookie = probe >= 0 ? namespace_of(probe) : 0;
    close(probe);
    if (cookie == 0)
        throw Failure(kFailed,
                      "this kernel does not name network namespaces (Linux 5.14 or later is needed)");
    return cookie;
}

sockaddr_un guard_address(socklen_t& size) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path + 1, kGuardName, sizeof kGuardName - 1);
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + sizeof kGuardName);
    return address;
}

constexpr int64_t kRoot = 0;
constexpr int64_t kNotTold = -1;

/// The user who listens behind the name.
int64_t owner_of_name(const sockaddr_un& address, socklen_t size) {
    const int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ucred owner{};
    socklen_t length = sizeof owner;
    int result = -1;
    // One that is bound and does not listen yet is another guard that begins; a stranger may never do.
    constexpr int kAttempts = 40;
    for (int i = 0; i < kAttempts; ++i) {
        result = connect(probe, reinterpret_cast<const sockaddr*>(&address), size);
        if (result == 0 || errno != ECONNREFUSED)
            break;
        usleep(25'000);
    }
    const bool told = result == 0 && getsockopt(probe, SOL_SOCKET, SO_PEERCRED, &owner, &length) == 0;
    close(probe);
    return told ? static_cast<int64_t>(owner.uid) : kNotTold;
}

/// Takes room for all of the page now: a part that found none later would be a SIGBUS, ours or a reader's.
bool has_room(int file) {
    errno = posix_fallocate(file, 0, static_cast<off_t>(guard_mapping_size()));
    return errno == 0;
}

Failure another_guard(int pid = 0) {
    return {kFailed, "a guard is at work in this network namespace already" +
                         (pid != 0 ? fmt::format(", process {}", pid) : std::string())};
}

}  // namespace

bool State::same_as(const State& other) const { return ways == other.ways && says_the_same_as(other); }

bool State::says_the_same_as(const State& other) const {
    return everywhere.same_as(other.everywhere) && cgroups == other.cgroups && unseen == other.unseen &&
           memcmp(&cgroup_objection, &other.cgroup_objection, sizeof cgroup_objection) == 0;
}

Publisher::Publisher() : cookie_(own_namespace()) {
    int error;
    if (const GuardPage* other = map_guard(cookie_, nullptr, error))
        throw another_guard(other->pid);
    listen();
    remove_the_dead();
    make_file();
    make_page();
}

Publisher::~Publisher() {
    remove_own();
    if (page_ != nullptr) {
        // Release pairs with the acquire of who reads.
        page_->word.store(page_->word.load(std::memory_order_relaxed) >> 32 << 32, std::memory_order_release);
        robust_.list.next = &robust_.list;
        munmap(page_, guard_mapping_size());
    }
    for (const int fd : {listener_, file_, handed_out_})
        if (fd >= 0)
            close(fd);
}

void Publisher::listen() {
    listener_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = 0;
    const sockaddr_un address = guard_address(size);
    // Nobody has a descriptor for us (Linux 6.16; before it close_apart() alone keeps them from harm).
    const int no = 0;
    setsockopt(listener_, SOL_SOCKET, SO_PASSRIGHTS, &no, sizeof no);
    if (listener_ >= 0 && bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
        ::listen(listener_, 64) == 0)
        return;
    if (listener_ < 0 || errno != EADDRINUSE)
        fail("cannot listen for those who ask for the page");
    close(listener_);
    listener_ = -1;
    // Somebody has the name. Another guard, or a stranger, whom nobody will believe.
    const int64_t owner = owner_of_name(address, size);
    if (owner == kRoot)
        throw another_guard();
    warning_ = fmt::format(
        "the name @{} is taken by a process {}; only processes that see {} will find the guard", kGuardName,
        owner == kNotTold ? "that does not listen" : fmt::format("of user {}", owner), kGuardDirectory);
}

/// What lies at the page's place, if it is still our own.
void Publisher::remove_own() const {
    struct stat ours {};
    struct stat there {};
    if (!path_.empty() && fstat(file_, &ours) == 0 && lstat(path_.c_str(), &there) == 0 &&
        ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
        unlink(path_.c_str());
    if (!fresh_.empty())
        unlink(fresh_.c_str());
}

void Publisher::make_file() {
    struct stat status {};
    umask(022);
    const bool directory = (mkdir(kGuardDirectory, 0755) == 0 || errno == EEXIST) &&
                           lstat(kGuardDirectory, &status) == 0 && S_ISDIR(status.st_mode) &&
                           status.st_uid == 0 && (status.st_mode & 022) == 0;
    if (directory) {
        char name[40];
        snprintf(name, sizeof name, kGuardFile, static_cast<unsigned long long>(cookie_));
        path_ = fmt::format("{}/{}", kGuardDirectory, name);
        fresh_ = fmt::format("{}.{}.new", path_, getpid());
        unlink(fresh_.c_str());
        file_ = open(fresh_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (file_ >= 0 && !has_room(file_)) {
            unlink(fresh_.c_str());
            close(file_);
            file_ = -1;
        }
        if (file_ >= 0)
            handed_out_ = open(fresh_.c_str(), O_RDONLY | O_CLOEXEC);
    }
    if (file_ < 0) {
        // No /run, a full or a read-only one: the page is known by the name of the listener alone.
        path_.clear();
        fresh_.clear();
        if (listener_ < 0)
            throw Failure(kFailed, fmt::format("{} cannot be written to, and {}", kGuardDirectory, warning_));
        file_ = memfd_create("loopfast-guard", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (file_ < 0 || fchmod(file_, 0644) != 0)
            fail("cannot make the page");
        handed_out_ = open(fmt::format("/proc/self/fd/{}", file_).c_str(), O_RDONLY | O_CLOEXEC);
    }
    if (handed_out_ < 0 || !has_room(file_))
        fail("cannot make the page");
}

/// Pages of guards that were killed, of namespaces that may be gone, and what is no page: nobody else removes
/// them.
void Publisher::remove_the_dead() const {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(kGuardDirectory, error)) {
        const std::string name = entry.path().filename();
        // What all versions begin with.
        struct {
            uint64_t word = 0;
            uint64_t magic = 0;
        } begin;
        std::ifstream file(entry.path(), std::ios::binary);
        file.read(reinterpret_cast<char*>(&begin), sizeof begin);
        struct stat status {};
        if (name.rfind("guard-", 0) != 0 || lstat(entry.path().c_str(), &status) != 0)
            continue;
        // One that is being made has another name yet, and not for long.
        constexpr time_t kLong = 60;
        const bool fresh = name.find(".new") != std::string::npos && time(nullptr) - status.st_mtime < kLong;
        const bool believed = status.st_uid == 0 && S_ISREG(status.st_mode) && (status.st_mode & 022) == 0 &&
                              begin.magic == kGuardMagic && GuardPage::owner(begin.word) != 0;
        if (!fresh && !believed)
            std::filesystem::remove(entry.path(), error);
    }
}

void Publisher::make_page() {
    void* const memory = mmap(nullptr, guard_mapping_size(), PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (memory == MAP_FAILED)
        fail("cannot map the page");
    if (path_.empty())  // what exists may be written to, but no other mapping will
        fcntl(file_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
    page_ = static_cast<GuardPage*>(memory);
    page_->magic = kGuardMagic;
    page_->version = kGuardVersion;
    page_->size = sizeof(GuardPage);
    page_->namespace_cookie = cookie_;
    page_->pid = getpid();
}

void Publisher::publish(const State& state) {
    const bool first = page_->word.load(std::memory_order_relaxed) == 0;
    const uint64_t sequence = page_->word.load(std::memory_order_relaxed) >> 32;
    const auto self = static_cast<uint64_t>(gettid());
    if (first) {
        // Before the word says that there is an owner.
        robust_.list.next = &entry_;
        robust_.futex_offset = reinterpret_cast<char*>(&page_->word) - reinterpret_cast<char*>(&entry_);
        entry_.next = &robust_.list;
        if (syscall(SYS_set_robust_list, &robust_, sizeof robust_) != 0)
            fail("cannot make the page known to be ours");
    }
    page_->word.store((sequence + 1) << 32 | self, std::memory_order_relaxed);
    // Orders the odd number before what follows; pairs with the fence of who reads.
    std::atomic_thread_fence(std::memory_order_release);
    page_->count = state.everywhere.count;
    page_->more = state.everywhere.more;
    page_->unseen = state.unseen;
    std::copy_n(state.everywhere.list, state.everywhere.count, page_->objections);
    page_->cgroup_objection = state.cgroup_objection;
    page_->cgroup_count = static_cast<uint32_t>(state.cgroups.size());
    std::copy_n(state.cgroups.begin(), std::min<size_t>(state.cgroups.size(), kMostCgroups), page_->cgroups);
    // Release pairs with the acquire of who reads: an even number is seen after what it counts.
    page_->word.store((sequence + 2) << 32 | self, std::memory_order_release);
    if (first && !path_.empty())
        show_file();
}

/// Under its name, unless another guard, of whatever version, was faster.
void Publisher::show_file() {
    const int result = link(fresh_.c_str(), path_.c_str());
    const int error = errno;
    unlink(fresh_.c_str());
    fresh_.clear();
    if (result == 0)
        return;
    if (error == EEXIST)
        throw another_guard();
    errno = error;
    fail(path_);
}

int Publisher::listener() const { return apart_is_full() ? -1 : listener_; }

void Publisher::beat() { page_->beat.fetch_add(1, std::memory_order_relaxed); }

void Publisher::answer() {
    const int link = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (link < 0)
        return;
    char byte = 0;
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &handed_out_, sizeof handed_out_);
    // Who asked and went away, or does not read, gets nothing; nobody is waited for.
    static_cast<void>(sendmsg(link, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
    // He has nothing to say. What he queued all the same may take any time to let go of. Even a message of no
    // bytes comes with credentials, the end does not.
    const int on = 1;
    setsockopt(link, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    shutdown(link, SHUT_RD);
    part = {&byte, 1};
    message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t size = recvmsg(link, &message, MSG_PEEK | MSG_DONTWAIT);
    if (size == 0 && (message.msg_flags & MSG_CTRUNC) == 0)
        close(link);
    else
        close_apart(link);
}

}  // namespace loopfast::guard
