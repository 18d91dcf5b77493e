// EFAULT where the kernel has it: a bad buffer given to a call on the ring lane must fail the call, not kill
// the program. The copy between buffer and ring is one leaf routine (base/copy.h); a fault inside it is
// turned into its return value by the handler here. (That also covers a page of a segment that cannot be
// provided because the machine is out of memory.) And a guard's page that somebody has cut off, which only
// root can do, is a guard that is gone.
//
// The handler is installed when the process gets its first stream. The program's own disposition for the two
// signals is kept aside and given what is not ours; sigaction() goes on showing it. Ours has the stack, the
// mask and the restarting that the program's asked for, so that its handler finds what the kernel would have
// given it; but the two signals themselves stay free in the kernel, see masks.h.
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "base/alive.h"
#include "base/copy.h"
#include "base/lock.h"
#include "policy/verdict.h"
#include "posix/masks.h"
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

constexpr int kMirrored = SA_ONSTACK | SA_RESTART;

/// It was sent to a thread that believes it blocked: now it is, and comes again, to this thread or, if it was
/// for the process, to whichever has it free. There it lies pending as the program expects.
void keep_pending(int signal, siginfo_t* info, ucontext_t* context) {
    change_kernel_mask(SIG_BLOCK, bit_of(signal));
    faults_reach_handler = false;  // the next copy sees whether it was taken meanwhile
    // A mask that was for one wait, ppoll's or sigsuspend's, is over when this returns.
    const Mask after = word_of(context->uc_sigmask);
    if ((after & kStandIn) != 0)
        put_word(context->uc_sigmask, after | bit_of(signal));
    if (info->si_code == SI_TKILL)
        sys::call(SYS_rt_tgsigqueueinfo, sys::getpid(), sys::gettid(), signal, sys::word(info));
    else if (sys::call(SYS_rt_sigqueueinfo, sys::getpid(), signal, sys::word(info)) < 0)
        sys::kill(sys::getpid(), signal);
}

/// What would have happened without us happens when the instruction runs again, or is sent again if somebody
/// sent it.
void take_default(int signal, const siginfo_t* info) {
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    real::sigaction(signal, &standard, nullptr);
    if (info->si_code <= 0)
        raise(signal);
}

void call_program(int signal, siginfo_t* info, ucontext_t* context, const struct sigaction& action,
                  Mask now) {
    Mask blocked = word_of(action.sa_mask) & kTranslated;
    if ((action.sa_flags & SA_NODEFER) == 0)
        blocked |= bit_of(signal);
    const Mask shown = for_program(word_of(context->uc_sigmask));
    const Mask before = blocked == 0 ? meant() : mean(blocked | (for_program(now) & kTranslated));
    if (blocked != 0)
        change_kernel_mask(SIG_BLOCK, kStandIn);
    put_word(context->uc_sigmask, shown);
    if ((action.sa_flags & SA_SIGINFO) != 0)
        action.sa_sigaction(signal, info, context);
    else
        action.sa_handler(signal);
    const Mask after = word_of(context->uc_sigmask);
    put_word(context->uc_sigmask, for_kernel(after));
    mean((after & kTranslated) != 0 ? after & kTranslated : before);
}

void on_fault(int signal, siginfo_t* info, void* context) {
    auto* const machine = static_cast<ucontext_t*>(context);
    const bool was_sent = info->si_code <= 0;
    if (!was_sent && in_copy(counter_of(machine))) {
        continue_at(machine, loopfast_copy_fault);
        return;
    }
    if (signal == SIGBUS && info->si_code > 0 && guard_page_lost(info->si_addr))
        return;
    const int error = errno;
    const Mask now = kernel_mask();
    struct sigaction action = kept_for(signal)->action;
    if ((for_program(now) & bit_of(signal)) != 0) {
        if (was_sent)
            keep_pending(signal, info, machine);
        else
            take_default(signal, info);
    } else if (is_handler(action)) {
        if ((action.sa_flags & SA_RESETHAND) != 0)
            kept_for(signal)->action.sa_handler = SIG_DFL;
        errno = error;
        call_program(signal, info, machine, action, now);
        return;
    } else if (action.sa_handler != SIG_IGN || !was_sent) {
        take_default(signal, info);
    }
    errno = error;
}

/// Puts our handler into the kernel, in the manner of the program's.
void put_ours(const Kept& entry) {
    struct sigaction ours {};
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | kMirrored;
    if (is_handler(entry.action)) {
        ours.sa_flags &= ~kMirrored | entry.action.sa_flags;
        put_word(ours.sa_mask, word_of(entry.action.sa_mask) & ~kTranslated);
    }
    real::sigaction(entry.signal, &ours, nullptr);
}

bool ours_is_there(int signal) {
    struct sigaction now {};
    return real::sigaction(signal, nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) != 0 &&
           now.sa_sigaction == on_fault;
}

bool is_ignored(const Kept& entry) { return !is_handler(entry.action) && entry.action.sa_handler == SIG_IGN; }

/// How many calls are under way whose programs are to inherit what is ignored.
int ignoring = 0;

/// A child of vfork has dispositions of its own, and its parent's memory.
bool is_guest() { return owner_process.load(std::memory_order_relaxed) != 0 && in_borrowed_memory(); }

}  // namespace

void fault_handlers_forked() {
    installing.reset();
    if (ignoring == 0)
        return;
    ignoring = 0;
    for (const auto& entry : kept)
        if (is_ignored(entry))
            put_ours(entry);
}

void install_fault_handlers() {
    if (installed.load(std::memory_order_acquire))
        return;
    Hold hold(installing);
    if (installed.load(std::memory_order_relaxed))
        return;
    for (auto& entry : kept) {
        real::sigaction(entry.signal, nullptr, &entry.action);
        put_ours(entry);
    }
    masks_translated.store(true, std::memory_order_release);
    translate_handlers();
    free_faults.store(translate_own_mask, std::memory_order_release);
    // Release pairs with the acquire above and in kept_disposition: `kept` is filled in.
    installed.store(true, std::memory_order_release);
}

bool show_ignored() {
    if (!installed.load(std::memory_order_acquire))
        return false;
    const bool guest = is_guest();
    Hold hold(installing);
    bool any = false;
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    for (const auto& entry : kept)
        if (is_ignored(entry) && (ignoring != 0 || ours_is_there(entry.signal))) {
            real::sigaction(entry.signal, &ignore, nullptr);
            any = true;
        }
    ignoring += any && !guest ? 1 : 0;
    return any;
}

void hide_ignored() {
    const bool guest = is_guest();
    Hold hold(installing);
    if (!guest && --ignoring != 0)
        return;
    for (const auto& entry : kept)
        if (is_ignored(entry))
            put_ours(entry);
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
        if (safe_copy(&byte, at, 1) != 0)
            return false;
    return safe_copy(&byte, last, 1) == 0;
}

bool kept_disposition(int signal, const struct sigaction* set, struct sigaction* old) {
    Kept* const entry = kept_for(signal);
    if (entry == nullptr || !installed.load(std::memory_order_acquire))
        return false;
    if (set != nullptr && is_guest()) {
        const bool was_ours = ours_is_there(signal);
        struct sigaction before {};
        if (real::sigaction(signal, set, &before) < 0)
            return true;
        if (old != nullptr)
            *old = was_ours ? entry->action : before;
        return true;
    }
    Hold hold(installing);
    const struct sigaction before = entry->action;
    if (set != nullptr) {
        entry->action = *set;
        put_ours(*entry);
    }
    if (old != nullptr)
        *old = before;
    return true;
}

}  // namespace loopfast
