// See victim_process.h.
#include "victim_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

#include "base/clock.h"

namespace loopfast::hostile {

bool Answer::as_tcp() const {
    return came && (result >= 0 || error == EAGAIN || error == ECONNRESET || error == EPIPE);
}

Victim::Victim(uid_t uid, const char* setting, const std::function<void()>& before, const char* program) {
    int to[2];
    int from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        abort();
    pid_ = fork();
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(to[0], 0);
        dup2(from[1], 1);
        setenv("LD_PRELOAD", VICTIM_LIBRARY, 1);
        for (const char* next = setting; *next != 0;) {
            const std::string one(next, strcspn(next, " "));
            putenv(strdup(one.c_str()));
            next += one.size();
            next += strspn(next, " ");
        }
        if (uid != 0 && (setgid(uid) != 0 || setuid(uid) != 0))
            _exit(77);
        if (before)
            before();
        execl(program != nullptr ? program : VICTIM_PROGRAM, VICTIM_PROGRAM, nullptr);
        _exit(78);
    }
    close(to[0]);
    close(from[1]);
    in_ = to[1];
    out_ = from[0];
    signal(SIGPIPE, SIG_IGN);
}

Victim::~Victim() {
    close(in_);
    close(out_);
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
}

Answer Victim::ask(const std::string& command, int limit_ms) {
    return tell(command) ? answer(limit_ms) : Answer{};
}

bool Victim::tell(const std::string& command) {
    const std::string line = command + "\n";
    return write(in_, line.data(), line.size()) == static_cast<ssize_t>(line.size());
}

Answer Victim::answer(int limit_ms) {
    Answer answer;
    const int64_t end = now_ns() + limit_ms * 1'000'000LL;
    size_t newline;
    while ((newline = pending_.find('\n')) == std::string::npos) {
        const int64_t left = end - now_ns();
        pollfd one{out_, POLLIN, 0};
        if (left <= 0 || poll(&one, 1, static_cast<int>(left / 1'000'000) + 1) <= 0)
            return answer;
        char buffer[512];
        const ssize_t size = read(out_, buffer, sizeof buffer);
        if (size <= 0)
            return answer;
        pending_.append(buffer, static_cast<size_t>(size));
    }
    char hex[200] = {};
    long long elapsed = 0;
    long long cpu = 0;
    if (sscanf(pending_.c_str(), "%ld %d %lld %lld %199[0-9a-f]", &answer.result, &answer.error, &elapsed,
               &cpu, hex) < 4)
        return answer;
    answer.elapsed_us = elapsed;
    answer.cpu_us = cpu;
    for (const char* digit = hex; digit[0] != 0 && digit[1] != 0; digit += 2) {
        const char two[3] = {digit[0], digit[1], 0};
        answer.bytes += static_cast<char>(strtol(two, nullptr, 16));
    }
    pending_.erase(0, newline + 1);
    answer.came = true;
    return answer;
}

long Victim::result(const std::string& command, int limit_ms) {
    const Answer answer = ask(command, limit_ms);
    EXPECT_TRUE(answer.came) << "no answer to: " << command << (alive() ? " (it hangs)" : " (it died)");
    return answer.came ? answer.result : -1000;
}

bool Victim::alive() {
    if (pid_ <= 0)
        return false;
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != pid_)
        return true;
    pid_ = -1;
    EXPECT_EQ(status, 0) << "the victim was ended by " << strsignal(WTERMSIG(status));
    return false;
}

bool Victim::exits(int limit_ms) {
    close(in_);
    in_ = -1;
    for (const int64_t end = now_ns() + limit_ms * 1'000'000LL; now_ns() < end; usleep(2000)) {
        int status = 0;
        if (pid_ > 0 && waitpid(pid_, &status, WNOHANG) == pid_) {
            pid_ = -1;
            return status == 0;
        }
    }
    return false;
}

}  // namespace loopfast::hostile
