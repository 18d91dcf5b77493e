// What the program installed for signals, as far as our waits have to know.
#pragma once

#include <signal.h>

namespace loopfast {

/// For a signal that we handle ourselves: reads and replaces the disposition the program believes in.
/// @return false when the signal is not ours, and the kernel has to be asked.
bool kept_disposition(int signal, const struct sigaction* set, struct sigaction* old);

}  // namespace loopfast
