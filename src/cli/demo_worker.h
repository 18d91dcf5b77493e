// The two ends of `loopfast demo`, each a process of its own: plain blocking TCP sockets. They know
// nothing of loopfast; only the client looks, through the C API if that is in the process, which lane its
// connection is really on.
#pragma once

#include <string>

namespace loopfast::cli {

struct WorkerOptions {
    std::string work;      ///< "pingpong" or "stream"
    double seconds = 0.5;  ///< how long to measure
    int port = 0;          ///< client: where the server listens
    int cpu = -1;          ///< where to run; -1: anywhere
    bool ring = false;     ///< client: the lane that is claimed, and must be
};

/// Prints its port on a line, serves one connection, ends.
int demo_server(const WorkerOptions& options);

/// Measures and prints one line of JSON: lane, reason, p50 and p99 in nanoseconds, bytes per second.
int demo_client(const WorkerOptions& options);

}  // namespace loopfast::cli
