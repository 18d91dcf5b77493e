// See orphan.h.
#include "posix/orphan.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/hidden.h"
#include "posix/posix.h"

namespace loopfast {

namespace {

/// While it lives a child's end is no signal, nor is the child gone before it was waited for.
class QuietChildren {
public:
    QuietChildren() {
        const Action none{};
        sys::call(SYS_rt_sigaction, SIGCHLD, sys::word(&none), sys::word(&before_), sizeof none.mask);
    }
    ~QuietChildren() {
        // Once more: it takes away the signal that is pending by now.
        const Action none{};
        sys::call(SYS_rt_sigaction, SIGCHLD, sys::word(&none), 0, sizeof none.mask);
        sys::call(SYS_rt_sigaction, SIGCHLD, sys::word(&before_), 0, sizeof before_.mask);
        // The program's own children of which it would have told are told of again.
        siginfo_t info{};
        constexpr int kAny = WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT;
        if (sys::call(SYS_waitid, P_ALL, 0, sys::word(&info), kAny, 0) == 0 && info.si_pid != 0)
            sys::kill(sys::getpid(), SIGCHLD);
    }
    QuietChildren(const QuietChildren&) = delete;
    QuietChildren& operator=(const QuietChildren&) = delete;

private:
    /// As the kernel has it, on x86-64 and arm64. All zeros: the default.
    struct Action {
        void* handler = nullptr;
        unsigned long flags = 0;
        void* restorer = nullptr;
        uint64_t mask = 0;
    };
    Action before_;
};

/// A process that adopts its descendants' orphans would be told of ours. While this lives it adopts none.
class NoAdoption {
public:
    NoAdoption() {
        int adopts = 0;
        adopts_ = sys::call(SYS_prctl, PR_GET_CHILD_SUBREAPER, sys::word(&adopts)) == 0 && adopts != 0;
        if (adopts_)
            sys::call(SYS_prctl, PR_SET_CHILD_SUBREAPER, 0);
    }
    ~NoAdoption() {
        if (adopts_)
            sys::call(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1);
    }
    NoAdoption(const NoAdoption&) = delete;
    NoAdoption& operator=(const NoAdoption&) = delete;

private:
    bool adopts_;
};

/// Bytes depend on it; who is out of processes or memory for a moment tries again.
pid_t insist_on(pid_t (*fork)()) {
    constexpr int kAttempts = 20;
    pid_t pid = fork();
    for (int attempt = 1; attempt < kAttempts && pid < 0; ++attempt) {
        sys::sleep_ns(2'000'000);
        pid = fork();
    }
    return pid;
}

}  // namespace

bool start_orphan(pid_t (*fork)(), void (*prepare)(void*), void (*run)(void*), void* argument) {
    const QuietChildren quiet;
    const pid_t middle = insist_on(fork);
    if (middle == 0) {
        prepare(argument);
        const pid_t orphan = insist_on(fork);
        if (orphan == 0)
            run(argument);
        else
            let_go_of_the_rest([](int, void*) { return false; }, nullptr);
        for (;;)
            sys::call(SYS_exit_group, orphan >= 0 ? 0 : 1);
    }
    int status = 1;
    const NoAdoption none;  // until the process in between has ended
    if (middle > 0)
        while (sys::call(SYS_wait4, middle, sys::word(&status), 0, 0) == -EINTR) {
        }
    return middle > 0 && status == 0;
}

pid_t bare_fork() {
    before_fork();
    const auto pid = static_cast<pid_t>(sys::call(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    if (pid == 0)
        forked_in_child();
    else
        after_fork_in_parent();
    return pid;
}

void let_go_of_the_rest(bool (*keep)(int fd, void* argument), void* argument, int one, int another) {
    constexpr int kEnd = 65536;
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd))
        if (!is_hidden(fd) && !keep(fd, argument))
            close_descriptor(fd);
    for (int fd = 0; fd < kEnd; ++fd) {
        const auto stays = [&](int number) {
            return number == one || number == another || is_hidden(number) ||
                   find(number).kind() != EntryKind::kNone;
        };
        if (stays(fd))
            continue;
        int end = fd + 1;
        const int entry = next_entry(fd);
        const int hidden = next_hidden(fd);
        end = kEnd;
        for (const int other : {entry, hidden, one, another})
            if (other > fd && other < end)
                end = other;
        sys::call(SYS_close_range, fd, end - 1, 0);
        fd = end - 1;
    }
}

}  // namespace loopfast
