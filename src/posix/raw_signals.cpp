// See raw_signals.h.
#include "posix/raw_signals.h"

#include <signal.h>
#include <string.h>

#include "base/copy.h"
#include "posix/masks.h"
#include "posix/posix.h"
#include "posix/signals.h"

namespace loopfast {

namespace {

constexpr long kMaskSize = sizeof(Mask);

/// With our way back from handlers, which is as good.
bool raw_sigaction(int signal, const KernelAction* set, KernelAction* old, long& result) {
    KernelAction given{};
    if (signal < 1 || signal > 64 || signal == 32 || signal == 33 ||
        (set != nullptr && safe_copy(&given, set, sizeof given) != 0))
        return false;
    const struct sigaction wanted = for_libc(given);
    struct sigaction before {};
    const struct sigaction* const asked = set != nullptr ? &wanted : nullptr;
    result = set_disposition(signal, asked, &before) < 0 ? -errno : 0;
    if (result == 0 && old != nullptr)
        result = put(old, from_libc(before));
    return true;
}

}  // namespace

bool raw_signal_call(long number, const long (&x)[4], long& result) {
    if (!masks_translated.load(std::memory_order_acquire))
        return false;
    switch (number) {
    case SYS_rt_sigaction:
        return x[3] == kMaskSize &&
               raw_sigaction(static_cast<int>(x[0]), reinterpret_cast<const KernelAction*>(x[1]),
                             reinterpret_cast<KernelAction*>(x[2]), result);
    case SYS_rt_sigprocmask: {
        const void* const set = reinterpret_cast<const void*>(x[1]);
        sigset_t given{};
        if (x[3] != kMaskSize || (set != nullptr && safe_copy(&given, set, sizeof(Mask)) != 0))
            return false;
        result = change_mask(static_cast<int>(x[0]), set != nullptr ? &given : nullptr,
                             reinterpret_cast<sigset_t*>(x[2]));
        return true;
    }
    case SYS_rt_sigsuspend: {
        if (x[1] != kMaskSize)
            return false;
        const WaitMask waiting(reinterpret_cast<const sigset_t*>(x[0]));
        result = sys::call(number, sys::word(waiting.get()), kMaskSize);
        return true;
    }
    default:
        return false;
    }
}

}  // namespace loopfast
