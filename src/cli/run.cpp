// See run.h.
#include "cli/run.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "cli/config.h"
#include "cli/failure.h"
#include "cli/program.h"

namespace loopfast::cli {

namespace {

std::string absolute(const std::string& path) {
    std::error_code error;
    const auto result = std::filesystem::absolute(path, error);
    return error ? path : result.string();
}

std::string variable(const char* name) {
    const char* value = getenv(name);
    return value != nullptr ? value : "";
}

constexpr const char* kLogExpected = "a file that can be written to, or \"stderr\"";

/// The library opens it in a process that has nobody to complain to.
void check_log(const Environment& environment, const RunOptions& options) {
    for (const auto& [name, value] : environment) {
        if (name != "LOOPFAST_LOG" || value == "stderr")
            continue;
        // As the library opens it, which waits for nobody either.
        const int fd = open(value.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0600);
        if (fd < 0)
            throw Failure(kUsage,
                          fmt::format("{} is \"{}\": {}; expected {}", options.log ? "--log" : "LOOPFAST_LOG",
                                      value, errno == ENXIO ? "a pipe that nobody reads" : strerror(errno),
                                      kLogExpected));
        close(fd);
    }
}

/// LD_PRELOAD with us in front; once, also where one `loopfast run` starts another.
std::string preload_list(const std::string& library) {
    // The loader separates at these and knows no quoting.
    if (library.find_first_of(" :") != std::string::npos)
        throw Failure(kFailed,
                      fmt::format("{}: LD_PRELOAD takes no path with a space or a colon in it; install "
                                  "loopfast elsewhere, or name a copy with LOOPFAST_LIBRARY",
                                  library));
    std::string list = preload_name(library);
    const std::string before = variable("LD_PRELOAD");
    for (size_t begin = 0; begin < before.size();) {
        const size_t end = std::min(before.find_first_of(" :", begin), before.size());
        const std::string entry = before.substr(begin, end - begin);
        if (!entry.empty() && entry != library && entry != preload_name(library))
            list += ":" + entry;
        begin = end + 1;
    }
    return list;
}

void explain(const Environment& environment, const std::string& path, const RunOptions& options) {
    for (const auto& [name, value] : environment)
        // $LIB is for the loader to read, not for a shell.
        fmt::print("{}={}\n", name, value.find('$') == std::string::npos ? value : "'" + value + "'");
    fmt::print("program {}\n", path);
    const std::string reason = why_not_preloadable(path);
    if (!reason.empty())
        fmt::print("loopfast has no effect on it: {}{}\n", reason,
                   options.force ? "" : "; it would not be started without --force");
}

}  // namespace

Environment make_environment(const RunOptions& options, const std::string& library) {
    // An option that was not given is what the environment says.
    const auto decided = [](const std::optional<std::string>& option, const char* name) {
        return option ? *option : variable(name);
    };
    // `--spin "$UNSET"`: who writes an option means something by it.
    const auto filled = [](const std::optional<std::string>& option, const char* name, const char* expected) {
        if (option && option->empty())
            throw Failure(kUsage, fmt::format("{} is \"\"; expected {}", name, expected));
    };
    filled(options.spin, "--spin", kSpinExpected);
    filled(options.threshold, "--threshold", kThresholdExpected);
    filled(options.log, "--log", kLogExpected);
    filled(options.config, "--config", "the path of a configuration file");
    const std::string spin = decided(options.spin, "LOOPFAST_SPIN");
    const std::string threshold = decided(options.threshold, "LOOPFAST_THRESHOLD");
    const std::string log = decided(options.log, "LOOPFAST_LOG");
    std::string config = decided(options.config, "LOOPFAST_CONFIG");
    if (!spin.empty() && !is_spin(spin))
        throw Failure(kUsage, fmt::format("{} is \"{}\"; expected {}",
                                          options.spin ? "--spin" : "LOOPFAST_SPIN", spin, kSpinExpected));
    if (!threshold.empty() && !is_threshold(threshold))
        throw Failure(kUsage, fmt::format("{} is \"{}\"; expected {}",
                                          options.threshold ? "--threshold" : "LOOPFAST_THRESHOLD", threshold,
                                          kThresholdExpected));

    const std::string assume = variable("LOOPFAST_ASSUME");
    if (!assume.empty() && assume != "fuse" && assume != "strict")
        throw Failure(kUsage,
                      fmt::format("LOOPFAST_ASSUME is \"{}\"; expected \"fuse\" or \"strict\"", assume));

    const std::string rings = variable("LOOPFAST_IO_URING");
    if (!rings.empty() && rings != "allow")
        throw Failure(kUsage,
                      fmt::format("LOOPFAST_IO_URING is \"{}\"; expected \"allow\" or nothing", rings));
    if (const std::string wrong = wrong_rule(variable("LOOPFAST_RULES")); !wrong.empty())
        throw Failure(kUsage,
                      fmt::format("LOOPFAST_RULES has the rule \"{}\"; expected "
                                  "PROGRAM:PORT:LANE:SPIN:THRESHOLD[:USER[:ADDRESS]], as `loopfast run "
                                  "--explain` shows it",
                                  wrong));

    Environment environment{{"LD_PRELOAD", preload_list(library)}, {"LOOPFAST", "on"}};
    if (!spin.empty())
        environment.emplace_back("LOOPFAST_SPIN", spin);
    if (!threshold.empty())
        environment.emplace_back("LOOPFAST_THRESHOLD", threshold);
    if (!log.empty())
        environment.emplace_back("LOOPFAST_LOG", log == "stderr" ? log : absolute(log));
    if (config.empty())
        config = default_config_file();
    if (!config.empty()) {
        environment.emplace_back("LOOPFAST_CONFIG", absolute(config));
        // Read in any case: a mistake is worth knowing of even where the environment has rules already.
        const Config settings = read_config(config);
        const std::string rules = compile_rules(settings, !spin.empty(), !threshold.empty());
        if (settings.assume && assume.empty())
            environment.emplace_back("LOOPFAST_ASSUME", *settings.assume);
        if (variable("LOOPFAST_RULES").empty() || options.config)
            environment.emplace_back("LOOPFAST_RULES", rules);
    }
    return environment;
}

int run(const RunOptions& options) {
    const std::string path = find_program(options.command.at(0));
    Environment environment = make_environment(options, find_library());
    // gcc's address sanitizer wants to be the first library, and ends the program when another one is. It
    // does its work all the same. (What was set before comes last, and counts.)
    if (needs_library(path, "libasan.so"))
        environment.emplace_back("ASAN_OPTIONS", "verify_asan_link_order=0:" + variable("ASAN_OPTIONS"));
    if (options.explain) {
        explain(environment, path, options);
        return 0;
    }
    if (!options.force) {
        const std::string reason = why_not_preloadable(path);
        if (!reason.empty())
            throw Failure(kCannotExecute,
                          fmt::format("{}: loopfast cannot work in this program: {}.\n"
                                      "Start it without loopfast, or with --force to start it all the same.",
                                      path, reason));
    }
    check_log(environment, options);
    if (variable("LOOPFAST") == "off" || variable("LOOPFAST") == "0")
        fmt::print(stderr, "loopfast: LOOPFAST={} in the environment gives way to `loopfast run`\n",
                   variable("LOOPFAST"));
    for (const auto& [name, value] : environment)
        setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> arguments;
    for (const std::string& argument : options.command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    execv(path.c_str(), arguments.data());
    // What a shell does with a file that has no "#!" line: gives it to sh.
    if (errno == ENOEXEC) {
        arguments[0] = const_cast<char*>(path.c_str());
        arguments.insert(arguments.begin(), const_cast<char*>("sh"));
        execv("/bin/sh", arguments.data());
    }
    const int error = errno;
    throw Failure(error == ENOENT ? kNotFound : kCannotExecute,
                  fmt::format("{}: {}{}", path, strerror(error),
                              error == ENOENT ? " (its interpreter is missing)" : ""));
}

}  // namespace loopfast::cli
