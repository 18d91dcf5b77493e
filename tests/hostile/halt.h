// Halts a victim at one system call, whichever is wanted, and lets it go on or ends it there: what happens to
// a process that is stopped, or killed, in the middle of a handshake.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <string>
#include <thread>

namespace loopfast::hostile {

class Halt {
public:
    /// The first thread of `pid`, a child of ours, is followed from here on and halted at its `place`th stop.
    /// Each system call has two: before it and after it. Those by which the victim takes its orders do not
    /// count. With `whole` its other threads stop as well while it is halted.
    Halt(pid_t pid, int place, bool whole);
    ~Halt();
    Halt(const Halt&) = delete;
    Halt& operator=(const Halt&) = delete;

    bool halted() const { return halted_.load(std::memory_order_acquire); }
    /// Where: "before recvmsg" or the like, by its number.
    std::string where() const;
    /// Halted: it goes on.
    void go_on();
    /// Halted: it is killed there.
    void kill();
    /// Not halted: it is no longer followed after its next call. @return how many stops there were.
    int seen() const { return seen_.load(std::memory_order_relaxed); }
    void leave() { leaving_.store(true, std::memory_order_release); }

private:
    void follow();

    pid_t pid_;
    int place_;
    bool whole_;
    std::atomic<int> seen_{0};
    std::atomic<long> call_{-1};
    std::atomic<bool> followed_{false};
    std::atomic<bool> halted_{false};
    std::atomic<bool> leaving_{false};
    enum Order { kNone, kGoOn, kKill };
    std::atomic<int> order_{kNone};
    std::thread thread_;  // all of ptrace is one thread's
};

}  // namespace loopfast::hostile
