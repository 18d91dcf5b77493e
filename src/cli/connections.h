// The connections of a running process, read out of its memory from outside: the table of descriptors, the
// shared halves of its streams, and the cursors of their rings (table/arena.h, stream/shared.h,
// segment/layout.h). The process is not stopped and notices nothing; what is read may be a moment old, and
// a connection that changed while it was read is left out.
#pragma once

#include <string>
#include <vector>

#include "cli/processes.h"
#include "cli/status_report.h"

namespace loopfast::cli {

/// What the process's table holds. When its memory cannot be read, or was laid out by another version of
/// the library, `note` says so and there are no connections.
ProcessStatus read_connections(const LoopfastProcess& process);

/// The descriptors that a process has open, in order.
std::vector<int> open_descriptors(pid_t pid);

}  // namespace loopfast::cli
