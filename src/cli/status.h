// `loopfast status`: the connections of every process that has loopfast in it and that the caller may
// inspect. The processes are not disturbed: their tables are read from outside.
#pragma once

#include <sys/types.h>

#include <optional>

namespace loopfast::cli {

struct StatusOptions {
    std::optional<pid_t> pid;  ///< only this one
    bool json = false;
};

int status(const StatusOptions& options);

}  // namespace loopfast::cli
