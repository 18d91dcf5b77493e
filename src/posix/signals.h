// What the program installed for signals, as far as our waits have to know.
#pragma once

#include <signal.h>

#include "posix/masks.h"

namespace loopfast {

/// For a signal that we handle ourselves: reads and replaces the disposition the program believes in.
/// @return false when the signal is not ours, and the kernel has to be asked.
bool kept_disposition(int signal, const struct sigaction* set, struct sigaction* old);

/// What rt_sigaction takes on x86-64 and arm64.
struct KernelAction {
    sighandler_t handler;
    unsigned long flags;
    void (*restorer)();
    Mask mask;
};
struct sigaction for_libc(const KernelAction& from);
KernelAction from_libc(const struct sigaction& from);

inline bool is_handler(const struct sigaction& action) {
    return action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN;
}

/// Handlers that were installed before ours: their masks as masks.h has them, their way back as
/// base/handlers.h.
void translate_handlers();
/// sigaction for all other signals, in the program's words.
int other_disposition(int signal, const struct sigaction* set, struct sigaction* old);
/// What sigaction() does. Never through the public name: a program that defines that itself, as Erlang's
/// machine does, calls libc's other name for it, which is ours too, and would be called by it for ever.
int set_disposition(int signal, const struct sigaction* set, struct sigaction* old);
/// The kernel hands down that a signal is ignored, but not that it has a handler: where the program ignores
/// one of our two, so does the kernel while an image is executed. @return whether hide_ignored() must follow.
bool show_ignored();
void hide_ignored();

}  // namespace loopfast
