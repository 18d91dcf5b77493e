// The lock that relatives share: exclusion between processes and threads, re-entry by a signal handler,
// and an owner that was killed.
#include "base/lock.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace loopfast {
namespace {

struct Shared {
    FamilyLock lock;
    std::atomic<int> ready{0};
    // Changed only under the lock, and not atomically: two inside at once would lose a count.
    volatile uint64_t count = 0;
    volatile uint64_t mirror = 0;
};

class LockTest : public ::testing::Test {
protected:
    void SetUp() override {
        void* const memory =
            mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(memory, MAP_FAILED);
        shared = new (memory) Shared();
    }
    void TearDown() override { munmap(shared, sizeof *shared); }

    void work(int rounds) const {
        for (int i = 0; i < rounds; ++i) {
            const Hold hold(shared->lock);
            const uint64_t seen = shared->count;
            ASSERT_EQ(seen, shared->mirror);
            shared->count = seen + 1;
            shared->mirror = seen + 1;
        }
    }
    /// Waits for the child, with an end. @return its status, or -1.
    static int wait_for(pid_t child) {
        for (int i = 0; i < 2000; ++i) {
            int status = 0;
            if (waitpid(child, &status, WNOHANG) == child)
                return status;
            usleep(10'000);
        }
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
        return -1;
    }
    Shared* shared = nullptr;
};

TEST_F(LockTest, ThreadsExclude) {
    constexpr int kRounds = 50'000;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] { work(kRounds); });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(shared->count, 4U * kRounds);
}

TEST_F(LockTest, ProcessesExclude) {
    constexpr int kRounds = 50'000;
    std::vector<pid_t> children;
    for (int i = 0; i < 3; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            cached_tid = 0;
            work(kRounds);
            _exit(HasFailure() ? 1 : 0);
        }
        children.push_back(child);
    }
    work(kRounds);
    for (const pid_t child : children)
        EXPECT_EQ(wait_for(child), 0);
    EXPECT_EQ(shared->count, 4U * kRounds);
}

TEST_F(LockTest, ADeadOwnersLockIsTakenOver) {
    for (int round = 0; round < 20; ++round) {
        const pid_t child = fork();
        if (child == 0) {
            cached_tid = 0;
            shared->lock.lock();
            shared->ready.store(round + 1);
            for (;;)
                pause();
        }
        while (shared->ready.load() != round + 1)
            sched_yield();
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
        const int64_t start = now_ns();
        EXPECT_TRUE(shared->lock.lock());
        EXPECT_LT(now_ns() - start, 5'000'000'000);
        shared->lock.unlock();
    }
}

TEST_F(LockTest, ALivingOwnersLockIsWaitedFor) {
    shared->lock.lock();
    std::atomic<bool> inside{false};
    std::thread other([&] {
        const Hold hold(shared->lock);
        inside = true;
    });
    // Long enough for the other one to have asked several times whether we still live.
    usleep(50'000);
    EXPECT_FALSE(inside.load());
    shared->lock.unlock();
    other.join();
    EXPECT_TRUE(inside.load());
}

TEST_F(LockTest, ReentryIsRecognisedAndLeavesTheLockTaken) {
    ASSERT_TRUE(shared->lock.lock());
    EXPECT_FALSE(shared->lock.lock()) << "as a signal handler on top of its own thread";
    { const Hold again(shared->lock); }
    std::thread([&] {
        // Still held: only somebody else's death or unlock gives it.
        EXPECT_EQ(held_locks, 0);
    }).join();
    EXPECT_EQ(held_locks, 1);
    shared->lock.unlock();
    EXPECT_EQ(held_locks, 0);
    EXPECT_TRUE(shared->lock.lock());
    shared->lock.unlock();
}

FamilyLock* in_handler = nullptr;
volatile sig_atomic_t handler_took = -1;

TEST_F(LockTest, AHandlerOnTopOfAHolderGoesOn) {
    in_handler = &shared->lock;
    struct sigaction action {};
    action.sa_handler = [](int) { handler_took = in_handler->lock() ? 1 : 0; };
    sigaction(SIGUSR1, &action, nullptr);
    shared->lock.lock();
    raise(SIGUSR1);
    EXPECT_EQ(handler_took, 0);
    shared->lock.unlock();
    raise(SIGUSR1);
    EXPECT_EQ(handler_took, 1);
    shared->lock.unlock();
}

// Two threads, each in a section, and in a handler on top of it that wants what the other one has: one of
// them gives up, and the other one gets it. What is no such knot is waited for.
TEST_F(LockTest, OfTwoHandlersThatWaitForEachOtherOneGivesUp) {
    FamilyLock first;
    FamilyLock second;
    std::atomic<int> inside{0};
    std::atomic<int> given_up{0};
    const auto part = [&](FamilyLock& own, FamilyLock& wanted) {
        const Hold hold(own);
        inside.fetch_add(1);
        while (inside.load() != 2)
            sched_yield();
        const FamilyLock::Taken taken = wanted.take();
        if (taken == FamilyLock::Taken::kYes)
            wanted.unlock();
        given_up += taken == FamilyLock::Taken::kBusy ? 1 : 0;
    };
    std::thread one(part, std::ref(first), std::ref(second));
    std::thread other(part, std::ref(second), std::ref(first));
    one.join();
    other.join();
    EXPECT_GE(given_up.load(), 1);
    EXPECT_EQ(first.try_lock(), FamilyLock::Taken::kYes);
    EXPECT_EQ(second.try_lock(), FamilyLock::Taken::kYes);
    second.unlock();
    first.unlock();
}

TEST_F(LockTest, AHandlerWaitsForWhoWillBeDone) {
    FamilyLock own;
    const Hold hold(own);
    std::atomic<bool> inside{false};
    std::thread other([&] {
        shared->lock.lock();
        inside = true;
        usleep(100'000);
        shared->lock.unlock();
    });
    while (!inside.load())
        sched_yield();
    EXPECT_EQ(shared->lock.take(), FamilyLock::Taken::kYes);
    shared->lock.unlock();
    other.join();
}

TEST_F(LockTest, AnIdThatIsUsedAgainIsNotTakenForOneself) {
    // A relative with our thread's id died holding it, long ago: the word says "me", but we never took it.
    const uint32_t me = my_tid();
    std::thread other([&] {
        cached_tid = static_cast<int>(me);
        shared->lock.lock();
        held_locks = 0;  // and is gone
        cached_tid = 0;
    });
    other.join();
    EXPECT_TRUE(shared->lock.lock());
    shared->lock.unlock();
}

TEST_F(LockTest, TheChildOfAForkHasAnIdOfItsOwn) {
    const uint32_t parent = my_tid();
    const pid_t child = fork();
    if (child == 0) {
        cached_tid = 0;
        _exit(my_tid() != parent && my_tid() == static_cast<uint32_t>(getpid()) ? 0 : 1);
    }
    EXPECT_EQ(wait_for(child), 0);
}

}  // namespace
}  // namespace loopfast
