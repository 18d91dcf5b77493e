// Blocked signals, as the program sees them and as the kernel has them.
//
// A fault whose signal is blocked ends the process, whatever handler there is; but threads with all signals
// blocked are common, and a bad pointer is EFAULT there too. So once our handler is installed, SIGSEGV and
// SIGBUS are not blocked in the kernel. That the program has blocked them is kept where the kernel keeps the
// mask itself: by blocking in their place SIGSTKFLT, which nothing on Linux ever sends. So the handlers'
// masks, sigreturn, siglongjmp, swapcontext, new threads and forks carry it along, and no call is needed to
// find it out. One that was sent (not raised by an instruction) to a thread that has it blocked so is blocked
// for good and sent once more, see fault.cpp.
#pragma once

#include <signal.h>
#include <string.h>

#include <atomic>
#include <cstdint>

namespace loopfast {

/// The kernel's set of signals, the first word of libc's.
using Mask = uint64_t;
constexpr Mask bit_of(int signal) { return Mask{1} << (signal - 1); }

constexpr Mask kFaultSignals = bit_of(SIGSEGV) | bit_of(SIGBUS);
constexpr Mask kStandIn = bit_of(SIGSTKFLT);
constexpr Mask kTranslated = kFaultSignals | kStandIn;

/// On from when our handlers are installed. Release in install_fault_handlers (fault.cpp) pairs with the
/// acquire of every call that translates: it finds the program's dispositions kept.
inline std::atomic<bool> masks_translated{false};

inline Mask word_of(const sigset_t& set) {
    Mask mask;
    memcpy(&mask, &set, sizeof mask);
    return mask;
}
/// The words behind the first stay: a signal frame's mask has no others.
inline void put_word(sigset_t& set, Mask mask) { memcpy(&set, &mask, sizeof mask); }

/// What the kernel is given for `mask`.
constexpr Mask for_kernel(Mask mask) {
    return (mask & kTranslated) == 0 ? mask : (mask & ~kTranslated) | kStandIn;
}
/// What the program is shown for a mask of the calling thread's.
Mask for_program(Mask mask);

/// Which of the three the calling thread means by the one; 0 for all of them. mean() gives back the former.
Mask meant();
Mask mean(Mask which);

/// The calling thread's mask in the kernel. @return the former one.
Mask change_kernel_mask(int how, Mask mask);
Mask kernel_mask();

/// sigprocmask in the program's words. @return 0 or -errno.
int change_mask(int how, const sigset_t* set, sigset_t* old);

/// What sigprocmask() and sigsuspend() do, not through the public names, see set_disposition().
int set_mask(int how, const sigset_t* set, sigset_t* old);
int suspend(const sigset_t* mask);

/// The calling thread's mask comes from before our handlers: it is translated.
void translate_own_mask();

/// A mask for one wait or suspension, for the kernel.
class WaitMask {
public:
    explicit WaitMask(const sigset_t* mask);
    const sigset_t* get() const { return given_; }
    /// false: it cannot be read, which the kernel says before it looks at anything.
    bool good() const { return good_; }

private:
    const sigset_t* given_;
    bool good_ = true;
    sigset_t own_;
};

/// Meanwhile the kernel has the mask that the program believes in: for what a new image inherits.
class BelievedMask {
public:
    BelievedMask();
    ~BelievedMask();
    BelievedMask(const BelievedMask&) = delete;
    BelievedMask& operator=(const BelievedMask&) = delete;

private:
    Mask before_ = 0;
    bool changed_ = false;
};

}  // namespace loopfast
