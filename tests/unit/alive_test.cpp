// The dead that their parents have not waited for, and locks that a fork copied in the middle of things.
#include "base/alive.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/hidden.h"
#include "base/lock.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

/// A child that waits to be killed.
pid_t idle_child() {
    const pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    return child;
}

/// Kills it and waits until it is dead, without taking its status.
void make_zombie(pid_t child) {
    kill(child, SIGKILL);
    siginfo_t information;
    ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &information, WEXITED | WNOWAIT), 0);
}

TEST(Alive, TheDeadAreGoneBeforeTheyAreWaitedFor) {
    const pid_t child = idle_child();
    ASSERT_GT(child, 0);
    EXPECT_FALSE(is_gone(child));
    make_zombie(child);
    EXPECT_EQ(kill(child, 0), 0) << "this is why signals do not tell";
    EXPECT_TRUE(is_gone(child));
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    EXPECT_TRUE(is_gone(child));
}

TEST(Alive, ThreadsAreThereAsLongAsTheyRun) {
    std::atomic<int> id{0};
    std::atomic<bool> end{false};
    std::thread other([&] {
        id = gettid();
        while (!end)
            std::this_thread::yield();
    });
    while (id == 0)
        std::this_thread::yield();
    EXPECT_FALSE(is_gone(id));
    EXPECT_FALSE(is_gone(gettid()));
    end = true;
    other.join();
    for (int round = 0; round < 5000 && !is_gone(id); ++round)  // join returns a little before the end
        usleep(1000);
    EXPECT_TRUE(is_gone(id));
}

TEST(Alive, ADeadRelativeHoldsNoStream) {
    StreamPair pair;
    SharedHalf& shared = *pair.connector().shared;
    EXPECT_EQ(count_holders(shared), 1);
    const pid_t child = idle_child();
    ASSERT_GT(child, 0);
    shared.holders[1] = child;
    EXPECT_EQ(count_holders(shared), 2);
    make_zombie(child);
    EXPECT_EQ(count_holders(shared), 1);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
}

TEST(Alive, AForkInTheMiddleOfHidingLeavesTheChildFree) {
    std::atomic<bool> end{false};
    std::thread other([&] {
        while (!end)
            close_hidden(hide(dup(0)));
    });
    for (int round = 0; round < 200; ++round) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            alarm(5);
            after_fork_in_child();
            const int fd = hide(dup(0));
            close_hidden(fd);
            _exit(fd >= 0 ? 0 : 1);
        }
        int status = -1;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_EQ(status, 0) << "round " << round;
    }
    end = true;
    other.join();
}

}  // namespace
}  // namespace loopfast
