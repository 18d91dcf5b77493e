// The calls of System V and of 4.2BSD: libc makes them of its own sigaction and sigprocmask, which know
// nothing of what fault.cpp and masks.h keep aside.
#include <errno.h>
#include <signal.h>

#include "posix/masks.h"
#include "posix/posix.h"
#include "posix/signals.h"

namespace loopfast {

namespace {

bool only(int signal, sigset_t& set) {
    if (signal < 1 || signal > 64) {
        errno = EINVAL;
        return false;
    }
    sigemptyset(&set);
    put_word(set, bit_of(signal));
    return true;
}

int change_one(int how, int signal) {
    sigset_t set;
    return only(signal, set) ? set_mask(how, &set, nullptr) : -1;
}

/// The masks of 4.2BSD have 32 signals.
int change_many(int how, int mask) {
    sigset_t set;
    sigset_t old;
    sigemptyset(&set);
    put_word(set, static_cast<unsigned>(mask));
    return set_mask(how, &set, &old) < 0 ? -1 : static_cast<int>(word_of(old));
}

int suspend_with(int mask) {
    sigset_t set;
    sigemptyset(&set);
    put_word(set, static_cast<unsigned>(mask));
    return suspend(&set);
}

int suspend_without(int signal) {
    sigset_t set;
    sigset_t now;
    if (!only(signal, set) || set_mask(SIG_BLOCK, nullptr, &now) < 0)
        return -1;
    put_word(now, word_of(now) & ~bit_of(signal));
    return suspend(&now);
}

}  // namespace

LOOPFAST_PUBLIC sighandler_t sigset(int signal, sighandler_t handler) noexcept {
    sigset_t set;
    sigset_t old;
    if (handler == SIG_ERR) {
        errno = EINVAL;
        return SIG_ERR;
    }
    if (!only(signal, set))
        return SIG_ERR;
    const bool hold = handler == SIG_HOLD;
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = handler;
    if (hold && set_mask(SIG_BLOCK, &set, &old) < 0)
        return SIG_ERR;
    if (set_disposition(signal, hold ? nullptr : &action, &before) < 0)
        return SIG_ERR;
    if (!hold && set_mask(SIG_UNBLOCK, &set, &old) < 0)
        return SIG_ERR;
    return (word_of(old) & bit_of(signal)) != 0 ? SIG_HOLD : before.sa_handler;
}

LOOPFAST_PUBLIC int sigignore(int signal) noexcept {
    struct sigaction action {};
    action.sa_handler = SIG_IGN;
    return set_disposition(signal, &action, nullptr);
}

LOOPFAST_PUBLIC int sighold(int signal) noexcept { return change_one(SIG_BLOCK, signal); }
LOOPFAST_PUBLIC int sigrelse(int signal) noexcept { return change_one(SIG_UNBLOCK, signal); }

LOOPFAST_PUBLIC int sigblock(int mask) noexcept { return change_many(SIG_BLOCK, mask); }
LOOPFAST_PUBLIC int sigsetmask(int mask) noexcept { return change_many(SIG_SETMASK, mask); }
LOOPFAST_PUBLIC int siggetmask() noexcept { return change_many(SIG_BLOCK, 0); }

/// Whether `sigpause` means a mask or a signal depends on what the program was compiled with.
LOOPFAST_PUBLIC int __sigpause(int which, int is_signal) {
    return is_signal != 0 ? suspend_without(which) : suspend_with(which);
}
LOOPFAST_PUBLIC int __xpg_sigpause(int signal) { return suspend_without(signal); }
LOOPFAST_PUBLIC int loopfast_sigpause(int mask) __asm__("sigpause");
LOOPFAST_PUBLIC int loopfast_sigpause(int mask) { return suspend_with(mask); }

}  // namespace loopfast
