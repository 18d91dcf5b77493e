// See ready.h.
#include "base/ready.h"

#include <atomic>

#include "base/hidden.h"
#include "base/lock.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

FamilyLock asking;
int set = -1;
bool inherited = false;  // the parent, and its other children, ask with the same set
std::atomic<uint32_t> questions{0};

/// With the lock held.
void make_set() {
    const RoomForOurs room;
    const int made = sys::epoll_create(EPOLL_CLOEXEC);
    const int fresh = made < 0 ? -1 : hide(made);
    if (fresh < 0)
        return;
    close_hidden(set);
    set = fresh;
    inherited = false;
}

/// What a file says that cannot be waited for.
int always_ready(int events) { return events & (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM); }

/// Puts `fd` into the set, over what a relative, or somebody who did not come to his end, has left there.
int enter(int fd, epoll_event& event) {
    const int result = sys::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    return result == -EEXIST ? sys::epoll_ctl(set, EPOLL_CTL_MOD, fd, &event) : result;
}

/// One question. @return false when somebody may have come in between: a relative, or a handler of ours.
bool ask(int fd, int events, int& answer) {
    epoll_event event{};
    event.events = static_cast<uint32_t>(events);
    // Nobody else's: relatives see each other's entries.
    event.data.u64 = uint64_t{my_tid()} << 32 | questions.fetch_add(1, std::memory_order_relaxed);
    const int entered = enter(fd, event);
    if (entered == -EPERM) {
        answer = always_ready(events);
        return true;
    }
    if (entered < 0) {
        answer = entered == -EBADF ? POLLNVAL : -EINVAL;
        return entered != -ENOENT;
    }
    constexpr int kMost = 32;
    epoll_event found[kMost];
    const int count = sys::epoll_pwait(set, found, kMost, 0, nullptr);
    answer = 0;
    for (int i = 0; i < count; ++i)
        if (found[i].data.u64 == event.data.u64)
            answer = static_cast<int>(found[i].events);
    const bool still_there = sys::epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr) == 0;
    return answer != 0 || (still_there && count == 0);
}

}  // namespace

int ready_by_set(int fd, int events) {
    const HoldIfFree hold(asking);
    if (!hold.held())
        return -EINVAL;
    if (set < 0 || inherited)
        make_set();
    if (set < 0)
        return -EINVAL;
    constexpr int kAttempts = 20;
    int answer = 0;
    for (int i = 0; i < kAttempts && !ask(fd, events, answer); ++i) {
    }
    return answer;
}

void prepare_ready_set() {
    const HoldIfFree hold(asking);
    if (hold.held() && set < 0)
        make_set();
}

void ready_set_after_fork_in_child() {
    asking.reset();
    inherited = set >= 0;
}

}  // namespace loopfast
