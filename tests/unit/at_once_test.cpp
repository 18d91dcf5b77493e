// A pair that opted in by itself is fused whatever its programs do meanwhile: the steward takes the steps of
// the setup (wait/steward.h). And what comes in between, closes, forks, options, costs nothing and loses
// nothing.
#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "link/possession.h"
#include "stream_pair.h"
#include "wait/poll_set.h"
#include "wait/steward.h"

namespace loopfast {
namespace {

constexpr size_t kMebibyte = 1 << 20;

bool both_send_into_the_ring(const StreamPair& pair) {
    return pair.connector().out_in_ring() && pair.acceptor().out_in_ring();
}

/// Without a call on the pair.
bool becomes_fused(const StreamPair& pair) {
    for (int i = 0; i < 10'000 && !both_send_into_the_ring(pair); ++i)
        usleep(1000);
    return both_send_into_the_ring(pair);
}

std::string pattern(size_t size, unsigned seed) {
    std::mt19937 random(seed);
    std::string bytes(size, '\0');
    for (char& byte : bytes)
        byte = static_cast<char>(random());
    return bytes;
}

std::string receive_all(int fd, size_t size) {
    std::string got(size, '\0');
    size_t done = 0;
    while (done < size) {
        const long result = door_receive(fd, got.data() + done, size - done);
        if (result <= 0)
            break;
        done += static_cast<size_t>(result);
    }
    got.resize(done);
    return got;
}

void send_all(int fd, const std::string& bytes) {
    for (size_t done = 0; done < bytes.size();) {
        const long result = door_send(fd, bytes.data() + done, bytes.size() - done);
        if (result <= 0)
            return;
        done += static_cast<size_t>(result);
    }
}

void exchange_a_message(const StreamPair& pair) {
    for (int end = 0; end < 2; ++end) {
        char byte = 'm';
        ASSERT_EQ(door_send(pair.fd(end), &byte, 1), 1);
        ASSERT_EQ(door_receive(pair.fd(1 - end), &byte, 1), 1);
    }
}

int open_descriptors() {
    DIR* const directory = opendir("/proc/self/fd");
    int count = 0;
    while (directory != nullptr && readdir(directory) != nullptr)
        ++count;
    closedir(directory);
    return count;
}

class AtOnce : public ::testing::Test {
protected:
    void SetUp() override {
        start_library();
        connect_steward();
    }
};

TEST_F(AtOnce, WithoutACall) {
    for (int round = 0; round < 20; ++round) {
        const StreamPair pair;
        ASSERT_TRUE(becomes_fused(pair));
        exchange_a_message(pair);
        EXPECT_TRUE(both_in_ring(pair.connector()) && both_in_ring(pair.acceptor()));
    }
}

TEST_F(AtOnce, AfterTheThresholdWithoutAnotherCall) {
    const StreamPair pair(100);
    EXPECT_EQ(pair.connector().state(), State::kCandidate);
    const std::string request = pattern(200, 1);
    send_all(pair.connector_fd(), request);
    EXPECT_EQ(receive_all(pair.acceptor_fd(), request.size()), request);
    EXPECT_TRUE(becomes_fused(pair));
}

TEST_F(AtOnce, WhileBothWaitForAMessage) {
    for (int round = 0; round < 20; ++round) {
        const StreamPair pair;
        std::string got[2];
        std::vector<std::thread> waiting;
        for (int end = 0; end < 2; ++end)
            waiting.emplace_back([&, end] { got[end] = receive_all(pair.fd(end), 5); });
        EXPECT_TRUE(becomes_fused(pair));
        send_all(pair.connector_fd(), "there");
        send_all(pair.acceptor_fd(), "again");
        for (std::thread& thread : waiting)
            thread.join();
        EXPECT_EQ(got[0] + got[1], "againthere");
    }
}

TEST_F(AtOnce, WhileAPollWaits) {
    const StreamPair pair;
    std::atomic<int> result{-1};
    std::thread waiting([&] {
        pollfd one{pair.acceptor_fd(), POLLIN, 0};
        result = poll_streams(&one, 1, 20'000'000'000, nullptr);
    });
    EXPECT_TRUE(becomes_fused(pair));
    send_all(pair.connector_fd(), "there");
    waiting.join();
    EXPECT_EQ(result, 1);
}

TEST_F(AtOnce, AMebibyteEachWayBeforeAnybodyReads) {
    const StreamPair pair;
    const std::string bytes[2] = {pattern(kMebibyte, 1), pattern(kMebibyte, 2)};
    send_all(pair.connector_fd(), bytes[0]);
    send_all(pair.acceptor_fd(), bytes[1]);
    EXPECT_TRUE(becomes_fused(pair));
    send_all(pair.connector_fd(), "end");
    send_all(pair.acceptor_fd(), "end");
    EXPECT_TRUE(receive_all(pair.acceptor_fd(), kMebibyte + 3) == bytes[0] + "end");
    EXPECT_TRUE(receive_all(pair.connector_fd(), kMebibyte + 3) == bytes[1] + "end");
}

TEST_F(AtOnce, AWriterThatWaitsForRoom) {
    // Nobody reads yet: it comes over to the ring all the same.
    const StreamPair pair;
    const std::string bytes = pattern(16 * kMebibyte, 3);
    std::thread writing([&] { send_all(pair.connector_fd(), bytes); });
    EXPECT_TRUE(becomes_fused(pair));
    EXPECT_TRUE(receive_all(pair.acceptor_fd(), bytes.size()) == bytes);
    writing.join();
}

TEST_F(AtOnce, NothingIsDoneForTheIdle) {
    TcpPair alone;
    opt_in(alone.connector, Role::kConnector);  // its offer is never answered
    const StreamPair pair;
    ASSERT_TRUE(becomes_fused(pair));
    usleep(50'000);
    timespec before;
    timespec after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    usleep(500'000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    EXPECT_LT((after.tv_sec - before.tv_sec) * 1'000'000'000L + after.tv_nsec - before.tv_nsec, 2'000'000);
    door_close(alone.connector);
    alone.connector = -1;
}

/// A moment somewhere in the setup, which takes some hundred microseconds.
void some_time(std::mt19937& random) { sys::sleep_ns(static_cast<long>(random() % 600'000)); }

TEST_F(AtOnce, ClosedInTheMiddle) {
    std::mt19937 random(1);
    {
        const StreamPair first;
        ASSERT_TRUE(becomes_fused(first));
    }
    const int before = open_descriptors();
    for (int round = 0; round < 200; ++round) {
        StreamPair pair;
        some_time(random);
        if (random() % 2 == 0)
            pair.close_connector();
        else
            pair.close_acceptor();
    }
    EXPECT_LE(open_descriptors(), before);
}

TEST_F(AtOnce, OptionsInTheMiddleAreTheProgramsOwn) {
    std::mt19937 random(2);
    for (int round = 0; round < 100; ++round) {
        const StreamPair pair;
        for (int look = 0; look < 10; ++look) {
            sys::sleep_ns(static_cast<long>(random() % 60'000));
            const int end = look % 2;
            const PrivateOptions ours(pair.stream(end));
            ASSERT_EQ(sign_of(pair.fd(end)), kSignLoop | kSignAll);
        }
        exchange_a_message(pair);
    }
}

TEST_F(AtOnce, ForkedInTheMiddle) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the sanitizer allows no threads in a child";
#endif
    std::mt19937 random(3);
    for (int round = 0; round < 30; ++round) {
        const StreamPair pair;
        some_time(random);
        before_fork();
        const pid_t pid = fork();
        if (pid == 0) {
            after_fork_in_child();
            _exit(0);
        }
        after_fork_in_parent();
        exchange_a_message(pair);
        waitpid(pid, nullptr, 0);
        exchange_a_message(pair);
    }
}

TEST_F(AtOnce, TheStewardIsStoppedInTheMiddle) {
    std::mt19937 random(4);
    for (int round = 0; round < 50; ++round) {
        const StreamPair pair;
        some_time(random);
        stop_steward();
        // From here on the calls take the steps.
        for (int i = 0; i < 500 && !both_send_into_the_ring(pair); ++i)
            exchange_a_message(pair);
        EXPECT_TRUE(both_send_into_the_ring(pair));
    }
}

}  // namespace
}  // namespace loopfast
