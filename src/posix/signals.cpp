// sigaction and its relatives: passed on, but for the two signals of fault.cpp; and with a way back of our
// own from each handler, because a wait of ours must know which ones have run (base/handlers.h).
#include "posix/signals.h"

#include <errno.h>

#include <atomic>
#include <cstdint>

#include "base/handlers.h"
#include "posix/masks.h"
#include "posix/posix.h"

namespace loopfast {

namespace {

/// Which of the three that masks.h translates a handler's mask had.
std::atomic<Mask> translated_bits[65];

/// Not the two that libc keeps for itself.
bool is_there(int signal) { return signal >= 1 && signal <= 64 && signal != 32 && signal != 33; }

/// What siginterrupt() asked for, for signal().
std::atomic<Mask> interrupts{0};

/// The kernel's, which libc does not show: there is a sa_restorer.
constexpr unsigned long kHasRestorer = 0x04000000;

/// As libc's sigaction, but for the way back. @return 0 or -errno.
long kernel_disposition(int signal, const struct sigaction* set, struct sigaction* old) {
    KernelAction given{};
    KernelAction before{};
    if (set != nullptr) {
        given = from_libc(*set);
        given.flags |= kHasRestorer;
        given.restorer =
            (given.flags & SA_RESTART) != 0 ? loopfast_return_restarting : loopfast_return_interrupting;
    }
    const long result = sys::call(SYS_rt_sigaction, signal, set != nullptr ? sys::word(&given) : 0,
                                  sys::word(&before), sizeof(Mask));
    if (result < 0)
        return result;
#if !defined(__x86_64__)
    // Where libc leaves the way back to the kernel, no program has seen one.
    if (before.restorer == loopfast_return_interrupting || before.restorer == loopfast_return_restarting) {
        before.flags &= ~kHasRestorer;
        before.restorer = nullptr;
    }
#endif
    if (old != nullptr)
        *old = for_libc(before);
    return 0;
}

sighandler_t install(int number, sighandler_t handler, int flags, bool itself) {
    if (handler == SIG_ERR) {
        errno = EINVAL;
        return SIG_ERR;
    }
    struct sigaction action {};
    struct sigaction old {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    if (itself && is_there(number))
        put_word(action.sa_mask, bit_of(number));
    return set_disposition(number, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}

}  // namespace

struct sigaction for_libc(const KernelAction& from) {
    struct sigaction to {};
    to.sa_handler = from.handler;
    to.sa_flags = static_cast<int>(from.flags);
    to.sa_restorer = from.restorer;
    put_word(to.sa_mask, from.mask);
    return to;
}

KernelAction from_libc(const struct sigaction& from) {
    return {from.sa_handler, static_cast<unsigned>(from.sa_flags), from.sa_restorer, word_of(from.sa_mask)};
}

int other_disposition(int signal, const struct sigaction* set, struct sigaction* old) {
    if (!is_there(signal) || !masks_translated.load(std::memory_order_acquire))
        return real::sigaction(signal, set, old);
    struct sigaction given {};
    Mask ours = 0;
    if (set != nullptr) {
        given = *set;
        const Mask mask = word_of(given.sa_mask);
        ours = mask & kTranslated;
        put_word(given.sa_mask, for_kernel(mask));
    }
    if (const long result = kernel_disposition(signal, set != nullptr ? &given : nullptr, old); result < 0) {
        errno = static_cast<int>(-result);
        return -1;
    }
    const Mask before = set != nullptr ? translated_bits[signal].exchange(ours, std::memory_order_relaxed)
                                       : translated_bits[signal].load(std::memory_order_relaxed);
    if (old != nullptr)
        if (const Mask mask = word_of(old->sa_mask); (mask & kStandIn) != 0)
            put_word(old->sa_mask, (mask & ~kStandIn) | (before == 0 ? kTranslated : before));
    return 0;
}

void translate_handlers() {
    for (int signal = 1; signal <= 64; ++signal) {
        struct sigaction action {};
        if (!is_there(signal) || (bit_of(signal) & kFaultSignals) != 0 ||
            real::sigaction(signal, nullptr, &action) < 0)
            continue;
        // Another thread may install one this moment, and think it done: then that is put back.
        sighandler_t there = action.sa_handler;
        while (is_handler(action)) {
            struct sigaction before {};
            if (other_disposition(signal, &action, &before) < 0 || before.sa_handler == there)
                break;
            there = action.sa_handler;
            action = before;
        }
    }
}

int set_disposition(int signal, const struct sigaction* action, struct sigaction* old) {
    return kept_disposition(signal, action, old) ? 0 : other_disposition(signal, action, old);
}
LOOPFAST_PUBLIC int sigaction(int signal, const struct sigaction* action, struct sigaction* old) noexcept {
    return set_disposition(signal, action, old);
}
LOOPFAST_PUBLIC int __sigaction(int signal, const struct sigaction* action, struct sigaction* old) noexcept {
    return set_disposition(signal, action, old);
}

namespace {

/// Not through libc's: its sigaction knows nothing of what fault.cpp keeps, nor of our way back.
sighandler_t set_handler(int number, sighandler_t handler) {
    const bool interrupting =
        is_there(number) && (interrupts.load(std::memory_order_relaxed) & bit_of(number)) != 0;
    return install(number, handler, interrupting ? 0 : SA_RESTART, true);
}

}  // namespace

LOOPFAST_PUBLIC sighandler_t signal(int number, sighandler_t handler) noexcept {
    return set_handler(number, handler);
}
LOOPFAST_PUBLIC sighandler_t bsd_signal(int number, sighandler_t handler) noexcept {
    return set_handler(number, handler);
}
LOOPFAST_PUBLIC sighandler_t ssignal(int number, sighandler_t handler) noexcept {
    return set_handler(number, handler);
}

namespace {
/// System V's, with the flag that has meant nothing since Linux 2.6, and that libc gives it.
constexpr int kOnce = static_cast<int>(SA_RESETHAND | SA_NODEFER | SA_INTERRUPT);
}  // namespace

LOOPFAST_PUBLIC sighandler_t sysv_signal(int number, sighandler_t handler) noexcept {
    return install(number, handler, kOnce, false);
}
LOOPFAST_PUBLIC sighandler_t __sysv_signal(int number, sighandler_t handler) noexcept {
    return install(number, handler, kOnce, false);
}

LOOPFAST_PUBLIC int siginterrupt(int number, int interrupt) noexcept {
    struct sigaction action {};
    if (set_disposition(number, nullptr, &action) < 0)
        return -1;
    // Relaxed: for later calls of signal(), of other threads at some time.
    if (interrupt != 0)
        interrupts.fetch_or(bit_of(number), std::memory_order_relaxed);
    else
        interrupts.fetch_and(~bit_of(number), std::memory_order_relaxed);
    action.sa_flags = interrupt != 0 ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
    return set_disposition(number, &action, nullptr);
}

}  // namespace loopfast
