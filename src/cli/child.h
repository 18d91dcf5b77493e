// A child process that is this program again under a hidden subcommand, with an environment of its own and
// its output in a pipe: the servers and clients of `loopfast demo`.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace loopfast::cli {

class Child {
public:
    /// Starts it. It dies with us. `environment` is complete: name=value each.
    Child(const std::vector<std::string>& arguments, const std::vector<std::string>& environment);
    ~Child();  ///< kills it if it still runs
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

    /// The next line that it prints, without the newline. Throws Failure when it ends or when the time is
    /// up before there is one.
    std::string line(std::chrono::milliseconds timeout);

    /// Waits for its end. @return the exit status; 128 + n after signal n. Throws Failure when time is up.
    int wait(std::chrono::milliseconds timeout);

private:
    std::string name_;
    pid_t pid_ = -1;
    int output_ = -1;
    std::string buffer_;
};

}  // namespace loopfast::cli
