// Hidden descriptors: above everything the program can be given under the limit it knows, and never more of
// them than there is room for. Limits belong to a process, so each case is a child of its own.
#include "base/hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include <gtest/gtest.h>

namespace loopfast {
namespace {

/// Runs `body` in a child that starts with these limits. Failed expectations in it become one here.
void with_limits(rlim_t soft, rlim_t hard, bool privileged, const std::function<void()>& body) {
    const pid_t child = fork();
    if (child == 0) {
        const rlimit limit{soft, hard};
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || (!privileged && getuid() == 0 && setuid(54321) != 0))
            _exit(77);
        body();
        _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        GTEST_SKIP() << "these limits cannot be had here";
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

rlimit kernel_limit() {
    rlimit limit{};
    prlimit(0, RLIMIT_NOFILE, nullptr, &limit);
    return limit;
}

TEST(Hidden, LiesAboveTheLimitTheProgramKnows) {
    with_limits(256, 4096, false, [] {
        const int original = open("/dev/null", O_RDWR);
        const int fd = hide(original);
        EXPECT_GE(fd, 256);
        EXPECT_TRUE(is_hidden(fd));
        EXPECT_EQ(fcntl(original, F_GETFD), -1) << "moved, not copied";
        EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
        rlimit seen{};
        EXPECT_TRUE(visible_limit(seen));
        EXPECT_EQ(seen.rlim_cur, 256U);
        EXPECT_EQ(seen.rlim_max, 4096U);
        EXPECT_EQ(kernel_limit().rlim_cur, 256U) << "the program is given nothing beyond its own limit";
        // The program's own numbers stay the lowest.
        EXPECT_EQ(open("/dev/null", O_RDWR), original);
        EXPECT_EQ(next_hidden(0), fd);
        EXPECT_EQ(next_hidden(fd + 1), -1);
        close_hidden(fd);
        EXPECT_FALSE(is_hidden(fd));
        EXPECT_EQ(fcntl(fd, F_GETFD), -1);
        EXPECT_EQ(next_hidden(0), -1);
    });
}

TEST(Hidden, AProcessWithoutAnyKeepsItsLimit) {
    with_limits(256, 4096, false, [] {
        rlimit seen{};
        EXPECT_FALSE(visible_limit(seen));
        EXPECT_FALSE(is_hidden(-1));
        EXPECT_FALSE(is_hidden(0));
        EXPECT_FALSE(is_hidden(1 << 30));
        EXPECT_EQ(next_hidden(-5), -1);
        EXPECT_EQ(kernel_limit().rlim_cur, 256U);
    });
}

TEST(Hidden, WithoutRoomAboveItTakesAQuarterBelow) {
    with_limits(64, 64, false, [] {
        std::vector<int> got;
        for (int i = 0; i < 64; ++i) {
            const int fd = hide(open("/dev/null", O_RDWR));
            if (fd < 0)
                break;
            EXPECT_GE(fd, 48);
            EXPECT_LT(fd, 64);
            got.push_back(fd);
        }
        EXPECT_EQ(got.size(), 16U);
        const int lowest = open("/dev/null", O_RDWR);
        EXPECT_GE(lowest, 0) << "there is room left for the program";
        EXPECT_EQ(hide(lowest), -1);
        EXPECT_EQ(fcntl(lowest, F_GETFD), -1) << "what could not be hidden is closed";
        for (const int fd : got)
            close_hidden(fd);
    });
}

TEST(Hidden, NothingToHide) {
    with_limits(256, 4096, false, [] {
        EXPECT_EQ(hide(-1), -1);
        EXPECT_EQ(hide(200), -1);
        close_hidden(-1);
    });
}

TEST(Hidden, AllDescriptorsTaken) {
    with_limits(64, 64, false, [] {
        std::vector<int> taken;
        for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = dup(fd))
            taken.push_back(fd);
        const int last = taken.back();
        EXPECT_EQ(hide(last), -1);
        EXPECT_EQ(fcntl(last, F_GETFD), -1);
    });
}

TEST(Hidden, TheProgramsOwnChangesOfTheLimitAreShownToIt) {
    with_limits(256, 4096, false, [] {
        const int fd = hide(open("/dev/null", O_RDWR));
        EXPECT_EQ(set_visible_limit({128, 4096}), 0);
        rlimit seen{};
        EXPECT_TRUE(visible_limit(seen));
        EXPECT_EQ(seen.rlim_cur, 128U);
        EXPECT_EQ(kernel_limit().rlim_cur, 128U);
        const int another = hide(open("/dev/null", O_RDWR));
        EXPECT_GE(another, 256) << "there is room for ours above it all the same";
        EXPECT_EQ(kernel_limit().rlim_cur, 128U);
        EXPECT_EQ(set_visible_limit({129, 128}), -EINVAL);
        EXPECT_EQ(set_visible_limit({128, 8192}), -EPERM) << "raising the hard limit is for the privileged";
        EXPECT_TRUE(visible_limit(seen));
        EXPECT_EQ(seen.rlim_max, 4096U);
        lower_limit_for_exec();
        EXPECT_EQ(kernel_limit().rlim_cur, 128U);
        raise_limit_after_exec();
        EXPECT_EQ(kernel_limit().rlim_cur, 128U);
        EXPECT_NE(fcntl(fd, F_GETFD), -1);
    });
}

TEST(Hidden, AHugeLimitDoesNotMakeHugeNumbers) {
    with_limits(1 << 20, 1 << 20, true, [] {
        const int fd = hide(open("/dev/null", O_RDWR));
        EXPECT_GE(fd, 65536);
        EXPECT_LT(fd, 131072);
    });
}

TEST(Hidden, AProgramThatLowersItsLimitLater) {
    // Before it opted in, or by a call that we did not see; our numbers above are not to be had any more.
    with_limits(4096, 4096, false, [] {
        const int before = hide(open("/dev/null", O_RDWR));
        EXPECT_GE(before, 3072);
        const rlimit limit{1024, 1024};
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
        limit_changed();
        const int after = hide(open("/dev/null", O_RDWR));
        EXPECT_GE(after, 768);
        EXPECT_LT(after, 1024);
        EXPECT_TRUE(is_hidden(before));
        close_hidden(before);
        close_hidden(after);
    });
}

/// memcached allows itself exactly as many as it was told of connections, and wants to use the last one too.
TEST(Hidden, AProgramThatLowersItsHardLimitCanUseAllThatItLeavesItself) {
    with_limits(4096, 8192, false, [] {
        keep_room_above({1024, 1024});
        ASSERT_EQ(set_visible_limit({1024, 1024}), 0);
        const int fd = hide(open("/dev/null", O_RDWR));
        EXPECT_GE(fd, 1024);
        rlimit seen{};
        EXPECT_TRUE(visible_limit(seen));
        EXPECT_EQ(seen.rlim_cur, 1024U);
        EXPECT_EQ(seen.rlim_max, 1024U);
        int last = open("/dev/null", O_RDWR);
        for (int next = last; next >= 0; next = dup(next))
            last = next;
        EXPECT_EQ(last, 1023);
        EXPECT_EQ(errno, EMFILE);
        EXPECT_EQ(set_visible_limit({512, 512}), 0);
        EXPECT_EQ(set_visible_limit({512, 1024}), -EPERM) << "what the program gave up it cannot have back";
        EXPECT_EQ(kernel_limit().rlim_cur, 512U);
        lower_limit_for_exec();
        EXPECT_EQ(kernel_limit().rlim_max, 512U) << "nor can what it executes";
    });
}

TEST(Hidden, ThePrivilegedMayRaiseAHardLimitThatTheyLowered) {
    with_limits(4096, 8192, true, [] {
        const rlimit raised{4096, 8193};
        const rlimit back{4096, 8192};
        if (setrlimit(RLIMIT_NOFILE, &raised) != 0)
            _exit(77);
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &back), 0);
        keep_room_above({1024, 1024});
        ASSERT_EQ(set_visible_limit({1024, 1024}), 0);
        EXPECT_EQ(set_visible_limit({1024, 2048}), 0);
        EXPECT_EQ(kernel_limit().rlim_cur, 1024U);
        EXPECT_EQ(kernel_limit().rlim_max, 8192U) << "as it was before it was asked about";
    });
}

TEST(Hidden, RoomIsKeptOnlyWhereItWouldBeLost) {
    with_limits(256, 8192, false, [] {
        rlimit seen{};
        keep_room_above({128, 8192});  // the hard limit stays
        EXPECT_FALSE(visible_limit(seen));
        keep_room_above({0, 0});  // no descriptors at all
        EXPECT_FALSE(visible_limit(seen));
        keep_room_above({1024, 512});  // which the kernel refuses
        EXPECT_FALSE(visible_limit(seen));
        EXPECT_EQ(kernel_limit().rlim_max, 8192U);
    });
}

TEST(Hidden, NumbersThatTheProgramHoldsAreSkipped) {
    with_limits(1 << 20, 1 << 20, true, [] {
        ASSERT_EQ(dup2(0, 65536), 65536);
        const int fd = hide(open("/dev/null", O_RDWR));
        EXPECT_GT(fd, 65536);
        EXPECT_FALSE(is_hidden(65536));
    });
}

}  // namespace
}  // namespace loopfast
