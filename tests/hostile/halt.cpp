// See halt.h.
#include "halt.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace loopfast::hostile {

namespace {

/// Standard input and output are the victim's orders and answers.
bool is_order(uint64_t number, uint64_t descriptor) {
    return (number == SYS_read && descriptor == 0) || (number == SYS_write && descriptor == 1);
}

}  // namespace

Halt::Halt(pid_t pid, int place, bool whole) : pid_(pid), place_(place), whole_(whole) {
    thread_ = std::thread([this] { follow(); });
    followed_.wait(false, std::memory_order_acquire);
}

Halt::~Halt() {
    leave();
    if (halted() && order_.load(std::memory_order_relaxed) == kNone)
        go_on();
    thread_.join();
}

void Halt::go_on() {
    order_.store(kGoOn, std::memory_order_release);
    order_.notify_one();
}

void Halt::kill() {
    order_.store(kKill, std::memory_order_release);
    order_.notify_one();
    thread_.join();
    thread_ = std::thread([] {});
}

std::string Halt::where() const {
    return std::string(place_ % 2 == 0 ? "before" : "after") + " call " + std::to_string(call_.load()) +
           ", stop " + std::to_string(place_);
}

void Halt::follow() {
    const bool seized = ptrace(PTRACE_SEIZE, pid_, nullptr, PTRACE_O_TRACESYSGOOD) == 0 &&
                        ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr) == 0;
    followed_.store(true, std::memory_order_release);
    followed_.notify_one();
    if (!seized)
        return;
    bool order = true;  // it is found waiting for one
    for (;;) {
        int status = 0;
        if (waitpid(pid_, &status, __WALL) != pid_ || !WIFSTOPPED(status))
            return;
        long pass_on = 0;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            __ptrace_syscall_info info{};
            ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof info, &info);
            if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
                order = is_order(info.entry.nr, info.entry.args[0]);
                call_.store(static_cast<long>(info.entry.nr), std::memory_order_relaxed);
            }
            if (leaving_.load(std::memory_order_acquire)) {
                ptrace(PTRACE_DETACH, pid_, nullptr, 0);
                return;
            }
            if (!order && seen_.fetch_add(1, std::memory_order_relaxed) == place_) {
                if (whole_)
                    ::kill(pid_, SIGSTOP);
                halted_.store(true, std::memory_order_release);
                order_.wait(kNone, std::memory_order_acquire);
                if (order_.load(std::memory_order_relaxed) == kKill) {
                    ::kill(pid_, SIGKILL);
                } else {
                    if (whole_)
                        ::kill(pid_, SIGCONT);
                    ptrace(PTRACE_DETACH, pid_, nullptr, 0);
                }
                return;
            }
        } else if (status >> 16 == 0) {
            pass_on = WSTOPSIG(status);
        }
        ptrace(PTRACE_SYSCALL, pid_, nullptr, pass_on);
    }
}

}  // namespace loopfast::hostile
