// See early_sets.h. /proc says which descriptors are epoll sets and what is in them.
//
// Other threads go on meanwhile. Who makes a set, or changes or waits in one, without account looks again
// when the call is over: if account is kept by then, the set is read once more, or the wait goes on in the
// set that is known now (posix/waits.cpp). Flags and looks are in the order of Dekker, so one of the two sees
// the other.
#include "wait/early_sets.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "table/table.h"
#include "wait/epoll_events.h"
#include "wait/epoll_set.h"

namespace loopfast {

namespace {

// Both seq_cst, see above.
std::atomic<bool> tracked{false};
std::atomic<bool> unseen_sets{false};  ///< some were made without account
FamilyLock taking_in;

constexpr int kMostEarly = 1024;  // distinct sets; a process with more stays on the kernel lane

struct DirectoryEntry {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

bool is_set(int directory, const char* name) {
    constexpr char kSet[] = "anon_inode:[eventpoll]";
    char target[sizeof kSet] = {};
    const long size = sys::call(SYS_readlinkat, directory, sys::word(name), sys::word(target), sizeof target);
    return size == sizeof kSet - 1 && memcmp(target, kSet, sizeof kSet - 1) == 0;
}

/// Two descriptors of one set? @return 1, 0, or -1 when the kernel does not say.
int same_file(int a, int b) {
    constexpr long kFile = 0;  // KCMP_FILE
    const long result = sys::call(SYS_kcmp, sys::getpid(), sys::getpid(), kFile, a, b);
    return result < 0 ? -1 : result == 0;
}

class Found {
public:
    /// @return false when it cannot be known what `fd` is.
    bool add(int fd) {
        for (int i = 0; i < count_; ++i) {
            const int same = same_file(fds_[i], fd);
            if (same < 0)
                return false;
            if (same == 1) {
                set_entry(fd, find(fds_[i]));
                return true;
            }
        }
        if (count_ == kMostEarly)
            return false;
        make_set(fd);
        EpollSet* const set = find_set(fd);
        if (set == nullptr || !set->take_in(fd))
            return false;
        fds_[count_++] = fd;
        return true;
    }
    /// Sets that are in other sets.
    void nest() {
        for (int i = 0; i < count_; ++i)
            each_entry_in_kernel(
                fds_[i],
                [](void*, int fd, uint32_t, uint64_t) {
                    if (EpollSet* const inner = find_set(fd))
                        inner->nest();
                },
                nullptr);
    }

private:
    int fds_[kMostEarly];
    int count_ = 0;
};

bool take_in_all() {
    const auto directory = static_cast<int>(
        sys::call(SYS_openat, AT_FDCWD, sys::word("/proc/self/fd"), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    if (directory < 0)
        return false;
    Found found;
    bool all = true;
    alignas(DirectoryEntry) char entries[2048];
    long size = 0;
    while (all && (size = sys::call(SYS_getdents64, directory, sys::word(entries), sizeof entries)) > 0)
        for (long at = 0; at < size && all;) {
            const auto* const entry = reinterpret_cast<const DirectoryEntry*>(entries + at);
            at += entry->size;
            if (entry->name[0] != '.' && is_set(directory, entry->name))
                all = found.add(static_cast<int>(strtol(entry->name, nullptr, 10)));
        }
    sys::close(directory);
    all = all && size == 0;  // less than 0: there may be more
    if (all)
        found.nest();
    return all;
}

}  // namespace

bool sets_are_tracked() { return tracked.load(std::memory_order_relaxed); }
void track_sets() { tracked.store(true, std::memory_order_seq_cst); }

void set_appeared(int fd) {
    if (!tracked.load(std::memory_order_seq_cst)) {
        if (!unseen_sets.load(std::memory_order_relaxed))
            unseen_sets.store(true, std::memory_order_seq_cst);
        if (!tracked.load(std::memory_order_seq_cst)) [[likely]]
            return;
    }
    make_set(fd);
}

bool take_in_early_sets() {
    if (tracked.load(std::memory_order_acquire) && !unseen_sets.load(std::memory_order_acquire))
        return true;
    Hold hold(taking_in);
    track_sets();
    if (!unseen_sets.load(std::memory_order_seq_cst))
        return true;
    if (!take_in_all()) {
        LOOPFAST_LOG("the process's epoll sets cannot be known: it stays on the kernel lane");
        return false;
    }
    unseen_sets.store(false, std::memory_order_release);
    return true;
}

void early_sets_forked() { taking_in.reset(); }

bool EpollSet::take_in(int set_fd) {
    Hold hold(lock);
    descriptor = set_fd;
    early_sleepers_ = true;
    struct Taken {
        EpollSet& set;
        bool all;
    } taken{*this, true};
    const bool read = each_entry_in_kernel(
        set_fd,
        [](void* argument, int fd, uint32_t events, uint64_t data) {
            auto& [set, all] = *static_cast<Taken*>(argument);
            Interest* const interest = set.interests_.make(fd);
            if (interest == nullptr && static_cast<uint32_t>(fd) < kMostDescriptors)
                all = false;  // it may mean a stream, which must not be fused then
            if (interest == nullptr || (interest->used && interest->managed))
                return;
            interest->used = true;
            interest->events = events;
            interest->data = data;
            set.always_look_ = set.always_look_ || !made_ready_by_noted_calls(fd);
            // Whether an edge has been reported is not known: once too often, then.
            interest->entered = set.kernel_waits_;
        },
        &taken);
    return read && taken.all;
}

}  // namespace loopfast
