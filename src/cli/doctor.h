// `loopfast doctor`: what on this machine, in these namespaces and for this process stands for and against
// the fast path, in plain words, and what one can do about it.
#pragma once

#include <sys/types.h>

#include <optional>

namespace loopfast::cli {

struct DoctorOptions {
    std::optional<pid_t> pid;
    bool json = false;
};

/// @return 1 if something forbids the fast path, else 0.
int doctor(const DoctorOptions& options);

}  // namespace loopfast::cli
