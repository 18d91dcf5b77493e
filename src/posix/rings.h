// io_uring: requests to read and write that no function of libc is called for. What a ring does to a fused
// connection nobody would see; so either there is no ring in a process or there is no fused connection.
#pragma once

namespace loopfast {

/// A program asks for a ring. @return true when it is to be told that this kernel has none: it falls back to
/// the calls we see. Otherwise the process's connections are on the kernel lane from now on.
bool ring_refused();

/// A ring was made.
bool ring_in_use();

/// For raw.cpp, which finds the next definition of syscall() at load.
void resolve_raw();

}  // namespace loopfast
