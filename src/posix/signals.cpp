// sigaction and its relatives: passed on, but for the two signals of fault.cpp; and noted, because a wait of
// ours must know whether the handler that interrupted it was installed with SA_RESTART.
#include "posix/signals.h"

#include <atomic>
#include <cstdint>

#include "posix/posix.h"
#include "wait/sleeper.h"

namespace loopfast {

namespace {

/// Raised by a program's own fault: never pending in a sleep.
constexpr uint64_t bit_of(int signal) { return uint64_t{1} << (signal - 1); }
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

void note(int signal) {
    if (signal < 1 || signal > 64)
        return;
    struct sigaction now {};
    if (!kept_disposition(signal, nullptr, &now) && real::sigaction(signal, nullptr, &now) < 0)
        return;
    const bool handled = now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN;
    const bool restarts = (now.sa_flags & SA_RESTART) != 0;
    const uint64_t bit = bit_of(signal) & ~kFaults;
    keep(interrupting_signals, bit, handled && !restarts);
    keep(restarting_signals, bit, handled && restarts);
}

sighandler_t install(int signal, sighandler_t handler, int flags) {
    struct sigaction action {};
    struct sigaction old {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    if (!kept_disposition(signal, &action, &old) && real::sigaction(signal, &action, &old) < 0)
        return SIG_ERR;
    note(signal);
    return old.sa_handler;
}

}  // namespace

LOOPFAST_PUBLIC int sigaction(int signal, const struct sigaction* action, struct sigaction* old) noexcept {
    if (kept_disposition(signal, action, old)) {
        note(signal);
        return 0;
    }
    const int result = real::sigaction(signal, action, old);
    if (result == 0 && action != nullptr)
        note(signal);
    return result;
}

LOOPFAST_PUBLIC sighandler_t signal(int number, sighandler_t handler) noexcept {
    if (kept_disposition(number, nullptr, nullptr))
        return install(number, handler, SA_RESTART);
    const sighandler_t result = real::signal(number, handler);
    if (result != SIG_ERR)
        note(number);
    return result;
}
LOOPFAST_PUBLIC sighandler_t bsd_signal(int number, sighandler_t handler) noexcept {
    return signal(number, handler);
}
LOOPFAST_PUBLIC sighandler_t ssignal(int number, sighandler_t handler) noexcept {
    return signal(number, handler);
}
LOOPFAST_PUBLIC sighandler_t sysv_signal(int number, sighandler_t handler) noexcept {
    return install(number, handler, static_cast<int>(SA_RESETHAND | SA_NODEFER));
}
LOOPFAST_PUBLIC sighandler_t __sysv_signal(int number, sighandler_t handler) noexcept {
    return sysv_signal(number, handler);
}

LOOPFAST_PUBLIC int siginterrupt(int number, int interrupt) noexcept {
    struct sigaction action {};
    if (sigaction(number, nullptr, &action) < 0)
        return -1;
    action.sa_flags = interrupt != 0 ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
    return sigaction(number, &action, nullptr);
}

}  // namespace loopfast
