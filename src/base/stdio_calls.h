// Whether calls are made inside libc, by stdio, that own_calls.h does not count.
#pragma once

#include <atomic>

namespace loopfast {

/// The process has opened a pipe or the like as a FILE. Relaxed: the thread that opens it sees its own store,
/// and others learn of the FILE from that thread.
inline std::atomic<bool> calls_by_stdio{false};

}  // namespace loopfast
