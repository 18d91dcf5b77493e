// See hidden.h.
#include "base/hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>

#include <algorithm>

#include "base/lock.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

// Numbers near a limit of a million would make the kernel's descriptor table megabytes large, and every
// fork copy it. Numbers are given lowest first, so a program meets 65536 only with as many open at once;
// then the kernel skips ours like any other number in use.
constexpr int kHighestBase = 65536;
constexpr int kRoom = 65536;     // as many hidden descriptors as we ask room for
constexpr int kInsideShare = 4;  // without room above the limit: at most a quarter of the numbers below it
constexpr int kWords = (kHighestBase + kRoom) / 64;
constexpr rlim_t kNoFewer = 64;  // who allows itself fewer than these wants no descriptors, ours included

std::atomic<uint64_t> hidden_bits[kWords];  // one bit per number; private to the process, copied by fork
FamilyLock setup;
bool ready = false;
bool raised = false;
int lowest = 0;
int highest = 0;
// Relaxed, both: an estimate. A fork in the middle of hiding may leave the child's one off.
std::atomic<int> all_room{-1};  // highest - lowest; -1: nothing was hidden yet
std::atomic<int> in_use{0};
rlimit visible{};  // what the program set, and knows
rlimit actual{};   // what holds while a descriptor is hidden

int prlimit_nofile(const rlimit* set, rlimit* old) {
    return static_cast<int>(
        sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, sys::word(const_cast<rlimit*>(set)), sys::word(old)));
}

/// What holds the rest of the time: the program is given no number that its own limit forbids. The hard limit
/// stays where it was brought, since the right to raise it again may be gone by then.
int restore_limit() {
    const rlimit limit{visible.rlim_cur, actual.rlim_max};
    return prlimit_nofile(&limit, nullptr);
}

void prepare() {
    if (prlimit_nofile(nullptr, &visible) < 0)
        return;
    const rlim_t soft = visible.rlim_cur;
    const int base = soft > static_cast<rlim_t>(kHighestBase) ? kHighestBase : static_cast<int>(soft);
    actual = visible;
    const rlim_t wanted = static_cast<rlim_t>(base) + kRoom;
    if (soft >= wanted) {
        lowest = base;
        highest = base + kRoom;
    } else {
        actual.rlim_cur = wanted;
        if (actual.rlim_max < wanted)
            actual.rlim_max = wanted;  // allowed with CAP_SYS_RESOURCE only
        int result = prlimit_nofile(&actual, nullptr);
        if (result < 0 && visible.rlim_max > soft) {
            actual = visible;
            actual.rlim_cur = visible.rlim_max;
            result = prlimit_nofile(&actual, nullptr);
        }
        if (result == 0) {
            raised = true;
            restore_limit();
            lowest = base;
            highest = static_cast<int>(actual.rlim_cur);
        } else {
            actual = visible;
            lowest = base - base / kInsideShare;
            highest = base;
        }
    }
    all_room.store(highest - lowest, std::memory_order_relaxed);
    ready = true;
}

bool has_capability(int capability) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
    return sys::call(SYS_capget, sys::word(&header), sys::word(sets)) == 0 &&
           (sets[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability)) != 0;
}

/// Raising a hard limit is the kernel's to judge, against the one that the program knows. Where ours is above
/// what is asked for, it is asked about one more than ours; the caller sets what is to hold. @return 0 or
/// -errno.
int judge_raising(rlim_t hard) {
    const rlimit judged{visible.rlim_cur, std::max(hard, actual.rlim_max + 1)};
    const int result = prlimit_nofile(&judged, nullptr);
    // One more may be beyond what the system allows anybody, which is EPERM as well.
    return result < 0 && hard <= actual.rlim_max && has_capability(CAP_SYS_RESOURCE) ? 0 : result;
}

std::atomic<uint64_t>& word_of(int fd) { return hidden_bits[fd / 64]; }
uint64_t bit_of(int fd) { return uint64_t{1} << (fd % 64); }

}  // namespace

int hide(int fd) {
    const int moved = hide_copy(fd);
    sys::close(fd);
    return moved;
}

int hide_copy(int fd) {
    Hold hold(setup);
    if (!ready)
        prepare();
    if (!ready)
        return -1;
    const bool above = raised && prlimit_nofile(&actual, nullptr) == 0;
    const int copy = sys::fcntl(fd, F_DUPFD_CLOEXEC, lowest);
    if (above)
        restore_limit();
    if (copy < 0)
        return -1;
    if (copy >= highest || copy >= kWords * 64) {
        sys::close(copy);
        return -1;
    }
    // Relaxed: readers only ask about numbers that they were told of in another, ordered way.
    word_of(copy).fetch_or(bit_of(copy), std::memory_order_relaxed);
    in_use.fetch_add(1, std::memory_order_relaxed);
    hidden_detail::any.store(true, std::memory_order_relaxed);
    return copy;
}

RoomForOurs::RoomForOurs() {
    Hold hold(setup);
    if (!ready)
        prepare();
    if (raised)
        prlimit_nofile(&actual, nullptr);
}

RoomForOurs::~RoomForOurs() {
    Hold hold(setup);
    if (raised)
        restore_limit();
}

void close_hidden(int fd) {
    if (fd < 0)
        return;
    word_of(fd).fetch_and(~bit_of(fd), std::memory_order_relaxed);
    in_use.fetch_sub(1, std::memory_order_relaxed);
    sys::close(fd);
}

bool hidden_detail::look(int fd) {
    return fd >= 0 && fd < kWords * 64 && (word_of(fd).load(std::memory_order_relaxed) & bit_of(fd)) != 0;
}

int hidden_room() {
    const int all = all_room.load(std::memory_order_relaxed);
    return all < 0 ? kRoom : all - in_use.load(std::memory_order_relaxed);
}

int next_hidden(int from) {
    if (!hidden_detail::any.load(std::memory_order_relaxed))
        return -1;
    for (int fd = from < 0 ? 0 : from; fd < kWords * 64;) {
        const uint64_t bits = word_of(fd).load(std::memory_order_relaxed) >> (fd % 64);
        if (bits != 0)
            return fd + __builtin_ctzll(bits);
        fd = (fd / 64 + 1) * 64;
    }
    return -1;
}

bool visible_limit(rlimit& limit) {
    if (!raised)
        return false;
    limit = visible;
    return true;
}

int set_visible_limit(const rlimit& limit) {
    Hold hold(setup);
    if (limit.rlim_cur > limit.rlim_max)
        return -EINVAL;
    rlimit wanted = limit;
    // Ours stays above what the program asks for, as far as the kernel lets it.
    if (wanted.rlim_cur < actual.rlim_cur)
        wanted.rlim_cur = actual.rlim_cur;
    if (wanted.rlim_max < actual.rlim_max)
        wanted.rlim_max = actual.rlim_max;
    if (limit.rlim_max > visible.rlim_max) {
        const int result = judge_raising(limit.rlim_max);
        if (result < 0)
            return result;
    }
    const int result = prlimit_nofile(&wanted, nullptr);
    if (result < 0)
        return result;
    visible = limit;
    actual = wanted;
    return restore_limit();
}

void keep_room_above(const rlimit& limit) {
    Hold hold(setup);
    rlimit now;
    if (raised || limit.rlim_cur < kNoFewer || limit.rlim_cur > limit.rlim_max ||
        prlimit_nofile(nullptr, &now) < 0)
        return;
    const rlim_t base = std::min(limit.rlim_cur, static_cast<rlim_t>(kHighestBase));
    if (limit.rlim_max >= now.rlim_max || limit.rlim_max >= base + kRoom || now.rlim_max <= base)
        return;  // nothing is taken away, or enough is left, or there is nothing above it anyway
    visible = now;
    actual = rlimit{std::min(base + kRoom, now.rlim_max), now.rlim_max};
    lowest = static_cast<int>(base);
    highest = static_cast<int>(actual.rlim_cur);
    all_room.store(highest - lowest, std::memory_order_relaxed);
    raised = true;
    ready = true;
}

void limit_changed() {
    Hold hold(setup);
    if (ready && !raised)
        prepare();
}

void lower_limit_for_exec() {
    if (raised)
        prlimit_nofile(&visible, nullptr);
}

void raise_limit_after_exec() {
    if (raised)
        restore_limit();
}

void hidden_after_fork_in_child() {
    setup.reset();
    if (raised)
        restore_limit();  // that thread may just have raised it
}

}  // namespace loopfast
