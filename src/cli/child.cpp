// See child.h.
#include "cli/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include <fmt/format.h>

#include "cli/failure.h"
#include "cli/program.h"

namespace loopfast::cli {

namespace {

using Clock = std::chrono::steady_clock;

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    result.reserve(strings.size() + 1);
    for (const std::string& string : strings)
        result.push_back(const_cast<char*>(string.c_str()));
    result.push_back(nullptr);
    return result;
}

}  // namespace

Child::Child(const std::vector<std::string>& arguments, const std::vector<std::string>& environment)
    : name_(arguments.at(0)) {
    const std::string path = own_path();
    std::vector<std::string> command{path};
    command.insert(command.end(), arguments.begin(), arguments.end());
    const auto argv = pointers(command);
    const auto envp = pointers(environment);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        throw Failure(kFailed, fmt::format("no pipe to {}: {}", name_, strerror(errno)));
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)  // it died before the line above
            _exit(kFailed);
        dup2(ends[1], STDOUT_FILENO);
        execve(path.c_str(), argv.data(), envp.data());
        _exit(kCannotExecute);
    }
    const int error = errno;
    close(ends[1]);
    output_ = ends[0];
    if (pid_ < 0) {
        close(output_);
        throw Failure(kFailed, fmt::format("{} could not be started: {}", name_, strerror(error)));
    }
}

Child::~Child() {
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    if (output_ >= 0)
        close(output_);
}

std::string Child::line(std::chrono::milliseconds timeout) {
    const auto deadline = Clock::now() + timeout;
    for (;;) {
        if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
            std::string result = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            return result;
        }
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        pollfd wait{.fd = output_, .events = POLLIN, .revents = 0};
        if (left.count() <= 0 || poll(&wait, 1, static_cast<int>(left.count())) == 0)
            throw Failure(kFailed, fmt::format("{} has not answered for {} ms", name_, timeout.count()));
        char bytes[4096];
        const ssize_t count = read(output_, bytes, sizeof bytes);
        if (count == 0)
            throw Failure(kFailed, fmt::format("{} ended early, with status {}", name_,
                                               this->wait(std::chrono::seconds(1))));
        if (count > 0)
            buffer_.append(bytes, static_cast<size_t>(count));
    }
}

int Child::wait(std::chrono::milliseconds timeout) {
    const auto deadline = Clock::now() + timeout;
    for (;;) {
        int status = 0;
        if (waitpid(pid_, &status, WNOHANG) == pid_) {
            pid_ = -1;
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        }
        if (Clock::now() > deadline)
            throw Failure(kFailed, fmt::format("{} has not ended after {} ms", name_, timeout.count()));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

}  // namespace loopfast::cli
