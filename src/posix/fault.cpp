// EFAULT where the kernel has it: a bad buffer given to a call on the ring lane must fail the call, not kill
// the program. The copy between buffer and ring is one leaf routine (base/copy.h); a fault inside it is
// turned into its return value by the handler here. (That also covers a page of a segment that cannot be
// provided because the machine is out of memory.) And a guard's page that somebody has cut off, which only
// root can do, is a guard that is gone.
//
// The handler is installed when the process gets its first stream. The program's own disposition for the two
// signals is kept aside and given what is not ours; sigaction() goes on showing it.
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "base/copy.h"
#include "base/lock.h"
#include "policy/verdict.h"
#include "posix/posix.h"
#include "posix/signals.h"

namespace loopfast {

namespace {

struct Kept {
    int signal;
    struct sigaction action;
};
Kept kept[2] = {{SIGSEGV, {}}, {SIGBUS, {}}};
std::atomic<bool> installed{false};
FamilyLock installing;

Kept* kept_for(int signal) {
    for (auto& entry : kept)
        if (entry.signal == signal)
            return &entry;
    return nullptr;
}

#if defined(__x86_64__)
uintptr_t counter_of(const ucontext_t* context) {
    return static_cast<uintptr_t>(context->uc_mcontext.gregs[REG_RIP]);
}
void continue_at(ucontext_t* context, const char* where) {
    context->uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(reinterpret_cast<uintptr_t>(where));
}
#else
uintptr_t counter_of(const ucontext_t* context) { return context->uc_mcontext.pc; }
void continue_at(ucontext_t* context, const char* where) {
    context->uc_mcontext.pc = reinterpret_cast<uintptr_t>(where);
}
#endif

void on_fault(int signal, siginfo_t* info, void* context) {
    auto* const machine = static_cast<ucontext_t*>(context);
    if (info->si_code > 0 && in_copy(counter_of(machine))) {
        continue_at(machine, loopfast_copy_fault);
        return;
    }
    if (signal == SIGBUS && info->si_code > 0 && guard_page_lost(info->si_addr))
        return;
    struct sigaction action = kept_for(signal)->action;
    if ((action.sa_flags & SA_SIGINFO) == 0 &&
        (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {
        // Not ours, and the program has no handler: what would have happened without us happens when the
        // instruction runs again, or is sent again if somebody sent it.
        if (action.sa_handler == SIG_IGN && info->si_code <= 0)
            return;
        struct sigaction standard {};
        standard.sa_handler = SIG_DFL;
        real::sigaction(signal, &standard, nullptr);
        if (info->si_code <= 0)
            raise(signal);
        return;
    }
    if ((action.sa_flags & SA_RESETHAND) != 0)
        kept_for(signal)->action.sa_handler = SIG_DFL;
    sigset_t before;
    sigset_t during = action.sa_mask;
    if ((action.sa_flags & SA_NODEFER) != 0)
        sigdelset(&during, signal);
    sigprocmask(SIG_BLOCK, &during, &before);
    if ((action.sa_flags & SA_SIGINFO) != 0)
        action.sa_sigaction(signal, info, context);
    else
        action.sa_handler(signal);
    sigprocmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

void fault_handlers_forked() { installing.reset(); }

void install_fault_handlers() {
    if (installed.load(std::memory_order_acquire))
        return;
    Hold hold(installing);
    if (installed.load(std::memory_order_relaxed))
        return;
    for (auto& entry : kept) {
        struct sigaction ours {};
        ours.sa_sigaction = on_fault;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
        real::sigaction(entry.signal, &ours, &entry.action);
    }
    // Release pairs with the acquire above and in kept_disposition: `kept` is filled in.
    installed.store(true, std::memory_order_release);
}

bool readable(const void* memory, size_t size) {
    constexpr size_t kPage = 4096;
    if (size == 0)
        return true;
    install_fault_handlers();
    const auto* const first = static_cast<const char*>(memory);
    const auto* const last = first + (size - 1);
    if (last < first)
        return false;
    // One byte of each page: the rest of a page is there when that is.
    char byte;
    for (const char* at = first; at < last; at += kPage)
        if (loopfast_copy(&byte, at, 1) != 0)
            return false;
    return loopfast_copy(&byte, last, 1) == 0;
}

bool kept_disposition(int signal, const struct sigaction* set, struct sigaction* old) {
    Kept* const entry = kept_for(signal);
    if (entry == nullptr || !installed.load(std::memory_order_acquire))
        return false;
    Hold hold(installing);
    const struct sigaction before = entry->action;
    if (set != nullptr)
        entry->action = *set;
    if (old != nullptr)
        *old = before;
    return true;
}

}  // namespace loopfast
