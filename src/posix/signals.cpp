// sigaction and its relatives: passed on, but for the two signals of fault.cpp; and noted, because a wait of
// ours must know whether the handler that interrupted it was installed with SA_RESTART.
#include "posix/signals.h"

#include <atomic>
#include <cstdint>

#include "posix/masks.h"
#include "posix/posix.h"
#include "wait/sleeper.h"

namespace loopfast {

namespace {

/// Raised by a program's own fault: never pending in a sleep.
constexpr uint64_t kFaults =
    bit_of(SIGSEGV) | bit_of(SIGBUS) | bit_of(SIGFPE) | bit_of(SIGILL) | bit_of(SIGTRAP);

// Relaxed: a handler that is installed while another thread waits may count for that wait or only for the
// next, as in the kernel; the thread that installs it sees its own store.
void keep(std::atomic<uint64_t>& signals, uint64_t bit, bool is_one) {
    if (is_one)
        signals.fetch_or(bit, std::memory_order_relaxed);
    else
        signals.fetch_and(~bit, std::memory_order_relaxed);
}

/// Which of the three that masks.h translates a handler's mask had.
std::atomic<Mask> translated_bits[65];

bool is_there(int signal) { return signal >= 1 && signal <= 64; }

sighandler_t install(int number, sighandler_t handler, int flags, bool itself) {
    struct sigaction action {};
    struct sigaction old {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    if (itself && is_there(number))
        put_word(action.sa_mask, bit_of(number));
    return set_disposition(number, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}

}  // namespace

void note(int signal) {
    if (!is_there(signal))
        return;
    struct sigaction now {};
    if (!kept_disposition(signal, nullptr, &now) && real::sigaction(signal, nullptr, &now) < 0)
        return;
    const bool handled = is_handler(now);
    const bool restarts = (now.sa_flags & SA_RESTART) != 0;
    const uint64_t bit = bit_of(signal) & ~kFaults;
    keep(interrupting_signals, bit, handled && !restarts);
    keep(restarting_signals, bit, handled && restarts);
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
    const int result = real::sigaction(signal, set != nullptr ? &given : nullptr, old);
    if (result < 0)
        return result;
    const Mask before = set != nullptr ? translated_bits[signal].exchange(ours, std::memory_order_relaxed)
                                       : translated_bits[signal].load(std::memory_order_relaxed);
    if (old != nullptr)
        if (const Mask mask = word_of(old->sa_mask); (mask & kStandIn) != 0)
            put_word(old->sa_mask, (mask & ~kStandIn) | (before == 0 ? kTranslated : before));
    return result;
}

void translate_handlers() {
    for (int signal = 1; signal <= 64; ++signal) {
        struct sigaction action {};
        if ((bit_of(signal) & kFaultSignals) == 0 && real::sigaction(signal, nullptr, &action) == 0 &&
            is_handler(action) && (word_of(action.sa_mask) & kFaultSignals) != 0)
            other_disposition(signal, &action, nullptr);
    }
}

int set_disposition(int signal, const struct sigaction* action, struct sigaction* old) {
    const int result = kept_disposition(signal, action, old) ? 0 : other_disposition(signal, action, old);
    if (result == 0 && action != nullptr)
        note(signal);
    return result;
}
LOOPFAST_PUBLIC int sigaction(int signal, const struct sigaction* action, struct sigaction* old) noexcept {
    return set_disposition(signal, action, old);
}
LOOPFAST_PUBLIC int __sigaction(int signal, const struct sigaction* action, struct sigaction* old) noexcept {
    return set_disposition(signal, action, old);
}

namespace {

sighandler_t set_handler(int number, sighandler_t handler) {
    if (kept_disposition(number, nullptr, nullptr))
        return install(number, handler, SA_RESTART, true);
    const sighandler_t result = real::signal(number, handler);
    if (result != SIG_ERR)
        note(number);
    return result;
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
LOOPFAST_PUBLIC sighandler_t sysv_signal(int number, sighandler_t handler) noexcept {
    return install(number, handler, static_cast<int>(SA_RESETHAND | SA_NODEFER), false);
}
LOOPFAST_PUBLIC sighandler_t __sysv_signal(int number, sighandler_t handler) noexcept {
    return install(number, handler, static_cast<int>(SA_RESETHAND | SA_NODEFER), false);
}

LOOPFAST_PUBLIC int siginterrupt(int number, int interrupt) noexcept {
    struct sigaction action {};
    if (set_disposition(number, nullptr, &action) < 0)
        return -1;
    action.sa_flags = interrupt != 0 ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
    return set_disposition(number, &action, nullptr);
}

}  // namespace loopfast
