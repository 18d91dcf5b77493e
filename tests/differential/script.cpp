// See script.h. What the harness needs for itself goes to the kernel by syscall(), past the library under
// test: a mistake of the library may spoil an operation, and not the report of it.
#include "script.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace differential {

namespace {
constexpr uint32_t kMostOperations = 1 << 16;
constexpr size_t kBoardBytes = size_t{256} << 20;  // sparse
}  // namespace

/// One entry per operation, in shared memory that every process of the script inherits.
struct Script::Board {
    struct Entry {
        long value;
        int error;
        uint32_t text_size;
        uint32_t data_size;
        uint64_t offset;
    };
    std::atomic<uint32_t> published;
    uint64_t used;
    std::atomic<pid_t> pids[kMostActors];
    Entry entries[kMostOperations];
    char bytes[];
};

Script::Script(int trace_fd) : trace_fd_(trace_fd) {
    void* const memory =
        mmap(nullptr, kBoardBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory for the board");
    board_ = static_cast<Board*>(memory);
    for (auto& pid : board_->pids)
        pid.store(getpid());
    count_sigpipe();
}

void Script::line(const std::string& text) const {
    const std::string whole = text + "\n";
    syscall(SYS_write, trace_fd_, whole.data(), whole.size());
}

void Script::note(Actor actor, const std::string& text) const {
    if (lives_here(actor))
        line("#" + text);
}

void Script::fail(const std::string& text) const {
    line("!" + text);
    _exit(3);
}

void Script::publish(uint32_t number, const Outcome& outcome) {
    Board::Entry& entry = board_->entries[number];
    entry.value = outcome.value;
    entry.error = outcome.error;
    entry.text_size = static_cast<uint32_t>(outcome.text.size());
    entry.data_size = static_cast<uint32_t>(outcome.data.size());
    entry.offset = board_->used;
    board_->used += outcome.text.size() + outcome.data.size();
    if (sizeof(Board) + board_->used > kBoardBytes)
        fail("the board is full");
    memcpy(board_->bytes + entry.offset, outcome.text.data(), outcome.text.size());
    memcpy(board_->bytes + entry.offset + outcome.text.size(), outcome.data.data(), outcome.data.size());
    board_->published.store(number + 1, std::memory_order_release);
    syscall(SYS_futex, &board_->published, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

Outcome Script::wait_for(uint32_t number) {
    for (;;) {
        const uint32_t seen = board_->published.load(std::memory_order_acquire);
        if (seen > number)
            break;
        const timespec patience{0, 100'000'000};
        syscall(SYS_futex, &board_->published, FUTEX_WAIT, seen, &patience, nullptr, 0);
        // A child that crashed will never publish; the first process says so instead of waiting.
        int status = 0;
        if (first_ && board_->published.load(std::memory_order_acquire) <= number) {
            const long child = syscall(SYS_wait4, -1, &status, WNOHANG, nullptr);
            if (child > 0 && WIFSIGNALED(status))
                fail(format("a process of the case died of signal %d", WTERMSIG(status)));
        }
    }
    const Board::Entry& entry = board_->entries[number];
    Outcome outcome;
    outcome.value = entry.value;
    outcome.error = entry.error;
    outcome.text.assign(board_->bytes + entry.offset, entry.text_size);
    outcome.data.assign(board_->bytes + entry.offset + entry.text_size, entry.data_size);
    return outcome;
}

Outcome Script::run(Actor actor, const std::string& what, const Body& body, Shown shown) {
    const uint32_t number = next_++;
    if (number >= kMostOperations)
        fail("too many operations");
    if (!lives_here(actor))
        return wait_for(number);
    Outcome outcome;
    line("@" + what);  // under way: what a hang is to be blamed on
    const int signals = count_of_sigpipe();
    errno = 0;
    body(outcome);
    if (outcome.value < 0 && outcome.error == 0)
        outcome.error = errno;
    const int pipes = count_of_sigpipe() - signals;
    if (shown == Shown::kYes) {
        std::string text = what + " -> " + std::to_string(outcome.value);
        if (outcome.value < 0)
            text += " " + error_name(outcome.error);
        if (!outcome.text.empty())
            text += " " + outcome.text;
        if (pipes != 0)
            text += format(" SIGPIPE*%d", pipes);
        line(text);
    }
    publish(number, outcome);
    return outcome;
}

Actor Script::fork(Actor parent, Actor moving) {
    const Actor actor = moving >= 0 ? moving : actors_++;
    if (actor >= kMostActors)
        fail("too many actors");
    ++processes_;
    parents_[actor] = parent;
    const uint32_t number = next_++;
    Outcome outcome;
    if (lives_here(parent)) {
        line(format("@fork %d", actor));
        const pid_t pid = ::fork();
        if (pid < 0)
            fail("fork: " + error_name(errno));
        if (pid == 0) {
            mine_ = 1U << actor;
            first_ = false;
            wait_for(number);
            return actor;
        }
        board_->pids[actor].store(pid);
        publish(number, outcome);
    } else {
        wait_for(number);
    }
    mine_ &= ~(1U << actor);
    return actor;
}

pid_t Script::pid_of(Actor actor) const { return board_->pids[actor].load(); }

void Script::exit(Actor actor) {
    const bool here = lives_here(actor);
    run(
        actor, "exit", [](Outcome&) {}, Shown::kNo);
    if (here)
        _exit(0);
    collect(actor, false);
}

void Script::kill(Actor actor) {
    while (lives_here(actor))
        pause();
    collect(actor, true);
}

void Script::collect(Actor actor, bool kill) {
    --processes_;
    run(parents_[actor], kill ? "kill -9" : "wait", [&](Outcome&) {
        const pid_t pid = pid_of(actor);
        if (kill)
            ::kill(pid, SIGKILL);
        int status = 0;
        if (!await([&] { return syscall(SYS_wait4, pid, &status, WNOHANG, nullptr) != 0; }))
            fail("a child did not end");
    });
}

void Script::finish() {
    if (!first_)
        _exit(0);
    int status = 0;
    bool all = false;
    const bool ended = await([&] {
        const long child = syscall(SYS_wait4, -1, &status, WNOHANG, nullptr);
        if (child > 0 && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
            fail(format("a process of the case died of signal %d at its end", WTERMSIG(status)));
        all = child < 0;
        return all;
    });
    if (!ended)
        fail("a process of the case did not end");
}

}  // namespace differential
