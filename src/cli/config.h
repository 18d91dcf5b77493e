// The configuration file: TOML, read and checked by the command only. The library, which must not allocate
// before main, gets what it needs as one flat string, LOOPFAST_RULES.
//
//     spin = "auto"            # "off", "auto" or microseconds
//     threshold = 2048         # bytes a connection carries before it is moved over
//     assume = "fuse"          # or "strict": what is taken for granted of packet filters that cannot be seen
//
//     [[rule]]                 # the first rule that matches and names a field decides it
//     program = "redis-server" # base name of argv[0]; absent: every program
//     port = 6379              # the listening side's; absent: every port
//     user = "redis"           # that the process runs as, a name or a number; absent: every user
//     address = "127.0.0.0/8"  # the listening side's; absent: every address
//     lane = "on"              # or "off"
//     threshold = 0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/failure.h"

namespace loopfast::cli {

struct Rule {
    std::optional<std::string> program;
    std::optional<uint16_t> port;
    std::optional<uint32_t> user;
    std::optional<std::string> address;  ///< as LOOPFAST_RULES has it: 4/7f000000/8
    std::optional<std::string> lane;     ///< "on" or "off"
    std::optional<std::string> spin;     ///< as LOOPFAST_SPIN takes it
    std::optional<uint64_t> threshold;
};

struct Config {
    std::optional<std::string> spin;
    std::optional<uint64_t> threshold;
    std::optional<std::string> assume;  ///< "fuse" or "strict"
    std::vector<Rule> rules;
};

/// Reads a configuration. Throws Failure(kUsage) whose text has a line for each mistake:
/// "FILE:LINE:COLUMN: what was found; what was expected", all but the first with the command's name in front.
Config parse_config(std::string_view text, const std::string& file);
Config read_config(const std::string& file);

/// The configuration as LOOPFAST_RULES has it: program:port:lane:spin:threshold;... A setting that the
/// command line or the environment has already decided is left out of every rule.
std::string compile_rules(const Config& config, bool leave_out_spin, bool leave_out_threshold);

/// The configuration file that holds where none was named: $XDG_CONFIG_HOME/loopfast/loopfast.toml (or
/// under ~/.config), then /etc/loopfast.toml; the first that exists, or an empty string.
std::string default_config_file();

/// Whether LOOPFAST_SPIN and LOOPFAST_THRESHOLD take this.
bool is_spin(std::string_view text);
bool is_threshold(std::string_view text);
/// The first of the rules in `text` that LOOPFAST_RULES does not take; empty when it takes all of them. (The
/// library passes over such rules: it has nobody to complain to.)
std::string wrong_rule(std::string_view text);

/// How messages describe these values.
inline constexpr const char* kSpinExpected = "\"off\", \"auto\" or a number of microseconds up to 1000000";
inline constexpr const char* kThresholdExpected = "a number of bytes, 0 to 999999999999999999";

}  // namespace loopfast::cli
