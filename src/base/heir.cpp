// See heir.h.
#include "base/heir.h"

#include <linux/close_range.h>
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/own_thread.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

// Since Linux 5.6; older headers of libc do not name it.
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/// @return 0 for what is no socket
uint64_t cookie_of(int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    return sys::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) < 0 ? 0 : cookie;
}

}  // namespace

bool Heir::possible() { return sys::call(SYS_prctl, PR_GET_SECCOMP) == 0; }

Heir::Heir(const int* fds, int count) : fds_(fds), count_(count) {
    if (count > kMost || !possible())
        return;
    for (int i = 0; i < count && known_cookie_ == 0; ++i) {
        known_ = i;
        known_cookie_ = cookie_of(fds[i]);
    }
    started_ = known_cookie_ != 0 && start_thread(inherit, this);
    if (started_)
        wait_for(kHeld);
}

Heir::~Heir() {
    if (!started_)
        return;
    advance(kClosed);
    wait_for(kOver);
}

bool Heir::take_all(int process) const {
    const auto take = [process](int fd) {
        return static_cast<int>(sys::call(SYS_pidfd_getfd, process, fd, 0));
    };
    for (int i = 0; i < count_; ++i) {
        const int own = take(fds_[i]);
        if (own < 0 || (i == known_ && cookie_of(own) != known_cookie_))
            return false;
    }
    return true;
}

void* Heir::inherit(void* self) {
    Heir& heir = *static_cast<Heir*>(self);
    become_own_thread();
    if (sys::call(SYS_close_range, 0, ~0U, CLOSE_RANGE_UNSHARE) == 0) {
        const int process = static_cast<int>(sys::call(SYS_pidfd_open, sys::getpid(), 0));
        heir.has_all_ = process >= 0 && heir.take_all(process);
    }
    heir.advance(kHeld);
    heir.wait_for(kClosed);
    heir.advance(kOver);
    return nullptr;
}

void Heir::advance(Stage stage) {
    stage_.store(stage, std::memory_order_release);
    // After kOver the word may be somebody else's, who is then woken for nothing.
    sys::call(SYS_futex, sys::word(&stage_), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

void Heir::wait_for(Stage stage) const {
    for (uint32_t now = stage_.load(std::memory_order_acquire); now < stage;
         now = stage_.load(std::memory_order_acquire))
        sys::call(SYS_futex, sys::word(&stage_), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, now);
}

}  // namespace loopfast
