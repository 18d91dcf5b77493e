// Threads that close what strangers sent: the program does not notice them. A variable of each thread that is
// larger than the stack they want is part of it.
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include <gtest/gtest.h>

#include "base/apart.h"
#include "base/heir.h"
#include "base/hidden.h"
#include "base/inject.h"

namespace loopfast {
namespace {

thread_local volatile char large[256 * 1024];

std::atomic<bool> there{false};
std::atomic<bool> go_on{false};

void wait_until(const std::atomic<bool>& word) {
    for (int i = 0; i < 20'000 && !word.load(); ++i)
        usleep(1000);
    EXPECT_TRUE(word.load());
}

/// The next call of this number comes to a halt until the scope ends, and the scope begins when it is there.
class Halted {
public:
    template <typename Begin> Halted(long number, Begin begin) {
        there.store(false);
        go_on.store(false);
        inject_action(number, [] {
            there.store(true);
            wait_until(go_on);
        });
        begin();
        wait_until(there);
    }
    ~Halted() {
        go_on.store(true);
        finish_apart();
        injected_faults();
    }
    Halted(const Halted&) = delete;
    Halted& operator=(const Halted&) = delete;
};

int lowest_number() {
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd;
}

int make_socket() { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }

TEST(Apart, TakesNoNumberOfTheProgram) {
    large[0] = 1;
    const int lowest = lowest_number();
    const int fd = hide(make_socket());
    ASSERT_GE(fd, 0);
    {
        const Halted heir(SYS_pidfd_getfd, [&] { close_apart(fd); });
        EXPECT_EQ(lowest_number(), lowest);
        EXPECT_FALSE(fcntl(fd, F_GETFD) < 0) << "the heir has nothing yet, and so it is open";
    }
    EXPECT_LT(fcntl(fd, F_GETFD), 0);
}

TEST(Apart, GivesANumberOfTheProgramBackAtOnce) {
    const int fd = make_socket();
    ASSERT_GE(fd, 0);
    int again = -1;
    {
        const Halted heir(SYS_pidfd_getfd, [&] { close_apart(fd); });
        again = make_socket();
        EXPECT_EQ(again, fd);
    }
    EXPECT_GE(fcntl(again, F_GETFD), 0) << "closed in place of what had the number before";
    close(again);
}

TEST(Heir, IsHadBesideLargeThreadVariables) {
    const int fd = make_socket();
    ASSERT_GE(fd, 0);
    {
        const Heir heir(&fd, 1);
        EXPECT_TRUE(heir.has_all());
    }
    close(fd);
}

TEST(Heir, IsNotHadForATableThatIsNotTheProcesss) {
    const int fd = make_socket();
    ASSERT_GE(fd, 0);
    static std::atomic<int> had{-1};
    pthread_t thread;
    ASSERT_EQ(pthread_create(
                  &thread, nullptr,
                  [](void* argument) -> void* {
                      // The number is another socket's here.
                      const int* const number = static_cast<const int*>(argument);
                      unshare(CLONE_FILES);
                      const int other = make_socket();
                      dup2(other, *number);
                      const Heir heir(number, 1);
                      had.store(heir.has_all());
                      return nullptr;
                  },
                  const_cast<int*>(&fd)),
              0);
    pthread_join(thread, nullptr);
    EXPECT_EQ(had.load(), 0);
    close(fd);
}

}  // namespace
}  // namespace loopfast
