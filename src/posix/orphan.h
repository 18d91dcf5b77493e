// A process of ours that goes on by itself, for what this one cannot wait for: see carrier.h. It is nobody's
// child, and the program is not told of it.
#pragma once

#include <sys/types.h>

namespace loopfast {

/// `prepare` runs in a process in between, and has ended when this returns; then `run` in the orphan, which
/// ends with it. Signals are to be blocked. @return false when there is no process to be had.
bool start_orphan(pid_t (*fork)(), void (*prepare)(void*), void (*run)(void*), void* argument);

/// A fork for where libc's cannot be called: in a signal handler, at the end of the process. The child may
/// call nothing of libc's that takes a lock.
pid_t bare_fork();

/// Closes what this process holds of the program's: connections and sets as the program would, the rest at
/// once. `keep` says of a descriptor with an entry that it stays; up to two others are named.
void let_go_of_the_rest(bool (*keep)(int fd, void* argument), void* argument, int one = -1, int another = -1);

}  // namespace loopfast
