// arguments.h: the command line that all measuring programs share.
//
//     PROGRAM server [--expect LANE] ...         prints "listening PORT", serves until it is killed
//     PROGRAM client --port PORT [--expect LANE] prints one JSON object with what it measured
//
// Two processes started apart, rather than one that forks: so each side can be given its own lane, its
// own processor and its own `loopfast run`.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace bench {

/// The path that the caller claims the bytes will take. A program whose connection takes another one ends
/// with an error, so that no result carries the wrong label.
enum class Lane { any, kernel, ring };

class Arguments {
public:
    /// Reads `server|client` and `--name value` pairs; prints a usage line and exits when it cannot.
    Arguments(int argc, char** argv);

    bool is_server() const { return server_; }
    uint16_t port() const { return static_cast<uint16_t>(number("port", 0)); }
    double seconds() const { return number("seconds", 1.0); }
    Lane expected_lane() const;
    /// The value of `--name`, or `fallback` if it was not given.
    double number(const std::string& name, double fallback) const;

private:
    bool server_ = false;
    std::map<std::string, std::string> values_;
};

}  // namespace bench
