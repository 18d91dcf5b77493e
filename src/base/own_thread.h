// Threads of ours in the program's process.
#pragma once

#include <pthread.h>

#include <cstddef>

namespace loopfast {

/// For one that makes a few system calls.
constexpr size_t kSmallStack = 64 * 1024;

/// Starts a thread which no signal of the program is for; libc's own reach it, which setuid() in a process
/// with several threads waits for. Where the program's thread variables need more room than `stack_size`
/// bytes leave, it gets a stack of the usual size. `joinable`: where its name goes; without it, it is
/// detached.
/// @return false when there can be none.
bool start_thread(void* (*body)(void*), void* argument, size_t stack_size = kSmallStack,
                  pthread_t* joinable = nullptr);

/// What the body begins with.
void become_own_thread();

}  // namespace loopfast
