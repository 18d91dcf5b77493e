// `loopfast run`: starts a program with the library preloaded and its settings in the environment.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace loopfast::cli {

struct RunOptions {
    std::optional<std::string> spin;       ///< LOOPFAST_SPIN
    std::optional<std::string> threshold;  ///< LOOPFAST_THRESHOLD
    std::optional<std::string> log;        ///< LOOPFAST_LOG
    std::optional<std::string> config;     ///< LOOPFAST_CONFIG
    bool explain = false;
    bool force = false;
    std::vector<std::string> command;
};

using Environment = std::vector<std::pair<std::string, std::string>>;

/// The variables that the options, the environment as it is and the configuration file make together: the
/// command line wins over the environment, and that over the file. `library` is preloaded first.
Environment make_environment(const RunOptions& options, const std::string& library);

/// Does not return if the program could be started.
int run(const RunOptions& options);

}  // namespace loopfast::cli
