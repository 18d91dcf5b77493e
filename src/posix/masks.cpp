// See masks.h.
#include "posix/masks.h"

#include <errno.h>
#include <pthread.h>

#include "base/copy.h"
#include "posix/posix.h"
#include "posix/signals.h"

namespace loopfast {

namespace {

/// 0: all three, as where sigfillset made the mask. One that is out of date, since a handler's mask or a jump
/// changed what the kernel has, matters only to who blocks one of the two without the other.
thread_local Mask which_meant = 0;

/// libc's own, by which it cancels threads and changes their users. No program blocks these.
constexpr Mask kOfLibc = bit_of(32) | bit_of(33);

Mask shown_as(Mask mask, Mask which) {
    return (mask & kStandIn) == 0 ? mask : (mask & ~kStandIn) | (which == 0 ? kTranslated : which);
}

}  // namespace

Mask for_program(Mask mask) { return shown_as(mask, which_meant); }

Mask meant() { return which_meant; }
Mask mean(Mask which) {
    const Mask before = which_meant;
    which_meant = which == kTranslated ? 0 : which;
    return before;
}

Mask change_kernel_mask(int how, Mask mask) {
    Mask before = 0;
    sys::call(SYS_rt_sigprocmask, how, sys::word(&mask), sys::word(&before), sizeof mask);
    return before;
}
Mask kernel_mask() {
    Mask now = 0;
    sys::call(SYS_rt_sigprocmask, SIG_BLOCK, 0, sys::word(&now), sizeof now);
    return now;
}

int change_mask(int how, const sigset_t* set, sigset_t* old) {
    if (set != nullptr && how != SIG_BLOCK && how != SIG_UNBLOCK && how != SIG_SETMASK)
        return -EINVAL;
    // What the one means is changed first: one that becomes free, and is pending, is delivered in the call.
    Mask shown;
    const Mask wanted = set == nullptr ? 0 : word_of(*set) & ~kOfLibc;
    const Mask ours = wanted & kTranslated;
    if (set == nullptr) {
        shown = for_program(kernel_mask());
    } else if (how == SIG_UNBLOCK) {
        const Mask before = ours == 0 ? 0 : kernel_mask();
        const Mask left = (before & kStandIn) == 0 ? 0 : for_program(kStandIn) & ~ours;
        const Mask meant_before = left == 0 ? meant() : mean(left);
        // The real ones may be blocked too, see fault.cpp.
        const Mask all = (wanted & ~kStandIn) | (ours != 0 && left == 0 ? kStandIn : 0);
        shown = shown_as(change_kernel_mask(SIG_UNBLOCK, all), meant_before);
    } else if (how == SIG_BLOCK) {
        shown = for_program(change_kernel_mask(SIG_BLOCK, for_kernel(wanted)));
        if (ours != 0)
            mean(ours | (shown & kTranslated));
    } else {
        const Mask meant_before = ours == 0 ? meant() : mean(ours);
        shown = shown_as(change_kernel_mask(SIG_SETMASK, for_kernel(wanted)), meant_before);
    }
    if (old != nullptr) {
        const iovec part{old, sizeof shown};
        if (!Buffers(&part, 1).copy_out(&shown, sizeof shown))
            return -EFAULT;
    }
    return 0;
}

void translate_own_mask() {
    const Mask mask = kernel_mask();
    if ((mask & kFaultSignals) == 0)
        return;
    mean(for_program(mask) & kTranslated);
    // In one step: one that is pending must not find itself free meanwhile.
    change_kernel_mask(SIG_SETMASK, for_kernel(mask));
}

WaitMask::WaitMask(const sigset_t* mask) : given_(mask) {
    Mask word = 0;
    if (mask == nullptr || !masks_translated.load(std::memory_order_acquire))
        return;
    good_ = safe_copy(&word, mask, sizeof word) == 0;
    if (!good_ || (word & kTranslated) == 0)
        return;
    put_word(own_, for_kernel(word));
    given_ = &own_;
}

BelievedMask::BelievedMask() {
    if (!masks_translated.load(std::memory_order_acquire))
        return;
    before_ = kernel_mask();
    changed_ = (before_ & kStandIn) != 0;
    if (changed_)
        change_kernel_mask(SIG_SETMASK, for_program(before_));
}

BelievedMask::~BelievedMask() {
    if (changed_)
        change_kernel_mask(SIG_SETMASK, before_);
}

// Real until there is something to translate, and then a call of our own: nothing that libc adds is wanted.
int set_mask(int how, const sigset_t* set, sigset_t* old) {
    if (!masks_translated.load(std::memory_order_acquire))
        return real::sigprocmask(how, set, old);
    return returned<int>(change_mask(how, set, old));
}

int suspend(const sigset_t* mask) {
    const WaitMask waiting(mask);
    return real::sigsuspend(waiting.get());
}

LOOPFAST_PUBLIC int sigprocmask(int how, const sigset_t* set, sigset_t* old) noexcept {
    return set_mask(how, set, old);
}
LOOPFAST_PUBLIC int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) noexcept {
    if (!masks_translated.load(std::memory_order_acquire))
        return real::pthread_sigmask(how, set, old);
    return -change_mask(how, set, old);
}

LOOPFAST_PUBLIC int sigsuspend(const sigset_t* mask) { return suspend(mask); }
LOOPFAST_PUBLIC int __sigsuspend(const sigset_t* mask) { return suspend(mask); }

}  // namespace loopfast
