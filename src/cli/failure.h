// How the command ends when it cannot do what was asked: one exception type that carries the exit status.
// The text says what is wrong, where, and what to do about it.
#pragma once

#include <stdexcept>
#include <string>

namespace loopfast::cli {

/// Exit statuses; the last two are those of a shell.
enum Status : int {
    kFailed = 1,           ///< it was tried and did not work
    kUsage = 2,            ///< the command line or the configuration file is wrong
    kCannotExecute = 126,  ///< the program is there and cannot be run
    kNotFound = 127,       ///< there is no such program
};

class Failure : public std::runtime_error {
public:
    Failure(Status status, const std::string& text) : std::runtime_error(text), status_(status) {}

    Status status() const { return status_; }

private:
    Status status_;
};

}  // namespace loopfast::cli
