// See file_size.h.
#include "base/file_size.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/syscall.h"

namespace loopfast {

namespace {

constexpr uint64_t kSignal = uint64_t{1} << (SIGXFSZ - 1);

}  // namespace

bool allowed_file_size(uint64_t size) {
    rlimit limit{};
    return sys::call(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, sys::word(&limit)) < 0 || size <= limit.rlim_cur;
}

NoSizeSignal::NoSizeSignal() {
    sys::call(SYS_rt_sigprocmask, SIG_BLOCK, sys::word(&kSignal), sys::word(&before_), sizeof kSignal);
    if ((before_ & kSignal) == 0)
        return;
    // One that the program has blocked and not taken yet stays.
    uint64_t pending = 0;
    sys::call(SYS_rt_sigpending, sys::word(&pending), sizeof pending);
    was_pending_ = (pending & kSignal) != 0;
}

NoSizeSignal::~NoSizeSignal() {
    if ((before_ & kSignal) == 0)
        sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::word(&before_), 0, sizeof before_);
}

void NoSizeSignal::refused() {
    const timespec none{0, 0};
    if (!was_pending_)
        sys::call(SYS_rt_sigtimedwait, sys::word(&kSignal), 0, sys::word(&none), sizeof kSignal);
}

int set_file_size(int fd, size_t size) {
    if (!allowed_file_size(size))
        return -EFBIG;
    // Another thread may lower the limit in between.
    NoSizeSignal quiet;
    const long result = sys::call(SYS_ftruncate, fd, static_cast<long>(size));
    if (result == -EFBIG)
        quiet.refused();
    return static_cast<int>(result);
}

}  // namespace loopfast
