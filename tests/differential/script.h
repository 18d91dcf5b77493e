// The lockstep: one script, run by several processes at once.
//
// Every process of a case executes the whole script from its beginning to its end. Each operation belongs to
// an actor, and each actor lives in one process: that process performs the operation, writes the trace line
// and publishes the outcome on a board in shared memory; all others wait for it there and go on with the same
// outcome. So a case reads like a program with one thread, its trace is deterministic, and the same text
// runs in one process, in two, or in more when it forks: a fork is just one more actor.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace differential {

/// Who performs an operation. Several may live in one process.
using Actor = int;
constexpr Actor kClient = 0;  ///< the connecting side
constexpr Actor kServer = 1;  ///< the accepting side
constexpr int kMostActors = 16;

/// What became of an operation: a value, errno where the value is negative, and whatever else is to be
/// compared, as text.
struct Outcome {
    long value = 0;
    int error = 0;
    std::string text;
    std::string data;  ///< for the script's own use; does not appear in the trace
    bool ok() const { return value >= 0; }
};

using Body = std::function<void(Outcome&)>;

/// Whether an operation appears in the trace. What brings a case about, or waits for something, does not.
enum class Shown { kYes, kNo };

class Script {
public:
    /// Starts a script in this process, which owns every actor until others are forked.
    explicit Script(int trace_fd);

    /// Performs `body` where `actor` lives and gives its outcome to all.
    Outcome run(Actor actor, const std::string& what, const Body& body, Shown shown = Shown::kYes);

    /// The process of `parent` forks; the child is where the new actor lives. `moving`: an actor of the
    /// parent that moves to the child instead (then it is returned).
    Actor fork(Actor parent, Actor moving = -1);
    /// The child process in which `actor` lives ends by itself, or by SIGKILL, and its parent collects it.
    void exit(Actor actor);
    void kill(Actor actor);

    bool lives_here(Actor actor) const { return (mine_ >> actor & 1) != 0; }
    bool one_process() const { return processes_ == 1; }
    pid_t pid_of(Actor actor) const;

    /// A line of the trace, written by whoever calls: once per script, so the owner of an actor does it.
    void line(const std::string& text) const;
    /// A remark that is not compared.
    void note(Actor actor, const std::string& text) const;
    /// The harness itself failed: nothing that follows means anything. Ends the process.
    [[noreturn]] void fail(const std::string& text) const;

    /// The script is over in this process. The first process waits for the others; they end here.
    void finish();

private:
    struct Board;
    void publish(uint32_t number, const Outcome& outcome);
    Outcome wait_for(uint32_t number);
    void collect(Actor actor, bool kill);

    Board* board_;
    int trace_fd_;
    uint32_t next_ = 0;
    uint32_t mine_ = 1U << kClient | 1U << kServer;  ///< the actors that live in this process
    int actors_ = 2;
    Actor parents_[kMostActors] = {};
    int processes_ = 1;
    bool first_ = true;
};

/// Sleeps until `condition` holds, at most `milliseconds`. @return whether it holds.
bool await(const std::function<bool()>& condition, int milliseconds = 5000);

std::string error_name(int error);
/// Bytes as they appear in a trace: in full when they are few, else their number and a hash.
std::string shown(std::string_view bytes);
/// `size` bytes that differ from position to position and from seed to seed.
std::string pattern(size_t size, unsigned seed = 1);
std::string format(const char* text, ...) __attribute__((format(printf, 1, 2)));

/// How many SIGPIPE this thread has got so far.
int count_of_sigpipe();
void count_sigpipe();

}  // namespace differential
