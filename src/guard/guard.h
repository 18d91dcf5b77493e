// `loopfast guard`: watches what looks at loopback packets in its network namespace, and publishes it to all
// processes of that namespace, most of which may not ask the kernel themselves.
#pragma once

namespace loopfast::guard {

struct GuardOptions {
    bool quiet = false;  ///< says nothing of what it finds
};

/// Runs until SIGTERM or SIGINT. @return the exit status; throws Failure when it cannot begin.
int run(const GuardOptions& options);

}  // namespace loopfast::guard
