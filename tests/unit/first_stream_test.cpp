// The first streams of a process, made by two threads at once: each finds the arena and the table whole.
// A program of its own, since in its own process nothing may have opened them: each attempt is a fork. What
// is wrong with the order of stores shows here under ThreadSanitizer (./dev tsan), and else once in a blue
// moon.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "table/arena.h"
#include "table/table.h"

namespace loopfast {
namespace {

// The second thread comes a little later each time, so that it meets the first at every point of its way.
constexpr int kAttempts = 100;
constexpr int64_t kStep = 500;

int make_streams_at_once(int64_t delay) {
    std::atomic<bool> begun{false};
    std::atomic<int> good{0};
    const auto make = [&] {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        return [&good, fd] {
            Stream* const stream = make_stream(fd);
            if (stream != nullptr && find_stream(fd) == stream)
                ++good;
        };
    };
    const auto first = make();
    const auto second = make();
    std::thread other{[&] {
        while (!begun) {
        }
        const int64_t start = now_ns();
        while (now_ns() < start + delay) {
        }
        second();
    }};
    begun = true;
    first();
    other.join();
    return good == 2 ? 0 : 1;
}

TEST(FirstStream, IsMadeByTwoThreads) {
    ASSERT_EQ(arena(), nullptr);
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        const pid_t child = fork();
        if (child == 0)
            _exit(make_streams_at_once(attempt * kStep));
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_EQ(status, 0) << "attempt " << attempt;
    }
}

}  // namespace
}  // namespace loopfast
