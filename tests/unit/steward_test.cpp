// What the steward does for ends whose program makes no call, and how it comes and goes. The tests' receiving
// ends leave the ring and then read with plain system calls, as an executed program would.
#include "wait/steward.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>

#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "stream_pair.h"

namespace loopfast {
namespace {

constexpr size_t kMebibyte = 1 << 20;

std::string pattern(size_t size, unsigned seed = 1) {
    std::string bytes(size, '\0');
    uint32_t state = seed * 2654435761U + 1;
    for (char& byte : bytes) {
        state = state * 1664525 + 1013904223;
        byte = static_cast<char>(state >> 24);
    }
    return bytes;
}

/// Reads as a stranger would, each wait limited.
std::string read_plainly(int fd, size_t wanted) {
    std::string got;
    std::vector<char> bytes(kMebibyte);
    while (got.size() < wanted) {
        pollfd one{fd, POLLIN, 0};
        if (::poll(&one, 1, 10'000) != 1)
            break;
        const ssize_t size = ::recv(fd, bytes.data(), bytes.size(), 0);
        if (size <= 0)
            break;
        got.append(bytes.data(), static_cast<size_t>(size));
    }
    return got;
}

class Steward : public ::testing::Test {
protected:
    void SetUp() override {
        start_library();
        connect_steward();
    }
};

TEST_F(Steward, SendsWhatThePeerLeftThoughNobodyCalls) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "unread", 6), 6);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    EXPECT_EQ(read_plainly(pair.acceptor_fd(), 6), "unread");
}

// As a child does that ends by syscall(SYS_exit), on its parent's memory.
TEST_F(Steward, StaysInOfficeWhenAChildOfVforkEnds) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "unread", 6), 6);
    const pid_t child = ::vfork();
    if (child == 0) {
        retire_steward();
        ::_exit(0);
    }
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    EXPECT_EQ(read_plainly(pair.acceptor_fd(), 6), "unread");
    // Nor is the next one wanting, after this one was stopped for a while.
    stop_steward();
    StreamPair next;
    ASSERT_TRUE(next.settle());
    ASSERT_EQ(door_send(next.connector_fd(), "more", 4), 4);
    ASSERT_TRUE(leave(next.acceptor(), next.acceptor_fd(), Reason::kPolicy));
    EXPECT_EQ(read_plainly(next.acceptor_fd(), 4), "more");
}

TEST_F(Steward, SendsMoreThanTheKernelTakesAtOnce) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const std::string much = pattern(4 * kMebibyte - 4096);
    ASSERT_EQ(door_send(pair.connector_fd(), much.data(), much.size(), MSG_DONTWAIT),
              static_cast<long>(much.size()));
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(read_plainly(pair.acceptor_fd(), much.size()) == much);
}

TEST_F(Steward, TheEndOfAClosedConnectionComesAfterItsBytes) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const std::string much = pattern(4 * kMebibyte - 4096);
    ASSERT_EQ(door_send(pair.connector_fd(), much.data(), much.size(), MSG_DONTWAIT),
              static_cast<long>(much.size()));
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    pair.close_connector();
    EXPECT_TRUE(read_plainly(pair.acceptor_fd(), much.size() + 1) == much);
    char byte;
    EXPECT_EQ(::recv(pair.acceptor_fd(), &byte, 1, MSG_DONTWAIT), 0);
}

TEST_F(Steward, TheEndOfADirectionComesAfterItsBytes) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const std::string much = pattern(4 * kMebibyte - 4096);
    ASSERT_EQ(door_send(pair.connector_fd(), much.data(), much.size(), MSG_DONTWAIT),
              static_cast<long>(much.size()));
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(door_shutdown(pair.connector_fd(), SHUT_WR), 0);
    EXPECT_EQ(door_send(pair.connector_fd(), "x", 1), -EPIPE);
    ASSERT_EQ(::send(pair.acceptor_fd(), "still heard", 11, 0), 11);
    char text[32];
    EXPECT_EQ(door_receive(pair.connector_fd(), text, sizeof text), 11);
    EXPECT_TRUE(read_plainly(pair.acceptor_fd(), much.size() + 1) == much);
}

TEST_F(Steward, StopsAndComesBackAtTheNextNeed) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    stop_steward();
    ASSERT_EQ(door_send(pair.connector_fd(), "unread", 6), 6);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    StreamPair other;
    ASSERT_TRUE(other.settle());  // a new connection brings it back, and it hears what it missed
    EXPECT_EQ(read_plainly(pair.acceptor_fd(), 6), "unread");
}

TEST_F(Steward, AForkedChildStartsItsOwn) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the sanitizer allows no threads in a child";
#endif
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    before_fork();
    const pid_t pid = fork();
    if (pid == 0) {
        after_fork_in_child();
        // A wait in the child is what needs one: for a byte that is there already, so that it ends.
        char byte;
        if (door_send(pair.acceptor_fd(), "b", 1) != 1 || door_receive(pair.connector_fd(), &byte, 1) != 1)
            _exit(1);
        attend(pair.connector());
        if (door_send(pair.connector_fd(), "from the child", 14) != 14 || ::write(ready[1], "r", 1) != 1)
            _exit(2);
        ::pause();
        _exit(0);
    }
    after_fork_in_parent();
    char byte;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    stop_steward();
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    EXPECT_EQ(read_plainly(pair.acceptor_fd(), 14), "from the child");
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
}

/// One connection under load in both directions; each end leaves at some moment, or does not.
struct Storm {
    explicit Storm(unsigned seed) : random(seed) {}

    void run(size_t bytes) {
        StreamPair pair;
        ASSERT_TRUE(pair.settle());
        const std::string out[2] = {pattern(bytes, random()), pattern(bytes, random())};
        std::string in[2];
        std::vector<std::thread> threads;
        for (int end = 0; end < 2; ++end) {
            const unsigned seed = random();
            threads.emplace_back([&, end, seed] {
                std::mt19937 sizes(seed);
                for (size_t done = 0; done < bytes;) {
                    const size_t size = std::min(bytes - done, size_t{1} << sizes() % 18);
                    const long sent = door_send(pair.fd(end), out[end].data() + done, size);
                    if (sent <= 0)
                        return;
                    done += static_cast<size_t>(sent);
                }
            });
            threads.emplace_back([&, end, seed] {
                std::mt19937 sizes(seed + 1);
                std::vector<char> room(256 * 1024);
                const timeval limit{20, 0};
                setsockopt(pair.fd(end), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
                pair.stream(end).shared->receive_timeout.store(20'000'000'000);
                while (in[end].size() < bytes) {
                    const long got = door_receive(pair.fd(end), room.data(), size_t{1} << sizes() % 19);
                    if (got <= 0)
                        return;
                    in[end].append(room.data(), static_cast<size_t>(got));
                }
            });
            if (random() % 3 != 0) {
                threads.emplace_back([&, end, seed] {
                    std::this_thread::sleep_for(std::chrono::microseconds(seed % 2000));
                    leave(pair.stream(end), pair.fd(end), Reason::kPolicy);
                });
            }
        }
        for (std::thread& thread : threads)
            thread.join();
        EXPECT_TRUE(in[0] == out[1]) << in[0].size() << " of " << bytes << " bytes at the connector";
        EXPECT_TRUE(in[1] == out[0]) << in[1].size() << " of " << bytes << " bytes at the acceptor";
    }
    std::mt19937 random;
};

TEST_F(Steward, AStormOfLeavingLosesNothing) {
    const char* const asked = getenv("LOOPFAST_TEST_SEED");
    const unsigned seed = asked != nullptr ? static_cast<unsigned>(strtoul(asked, nullptr, 10))
                                           : static_cast<unsigned>(getpid());
    const char* const long_form = getenv("LOOPFAST_TEST_LONG");
    std::printf("LOOPFAST_TEST_SEED=%u\n", seed);
    Storm storm(seed);
    // A gigabyte each way in the long form.
    const int connections = long_form != nullptr ? 512 : 24;
    for (int i = 0; i < connections && !HasFailure(); ++i)
        storm.run(2 * kMebibyte);
}

}  // namespace
}  // namespace loopfast
