// poll over streams, ordinary descriptors and sets of streams, mixed.
#include "wait/poll_set.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "policy/policy.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

constexpr int64_t kMs = 1'000'000;

class PollSetTest : public ::testing::Test {
protected:
    void SetUp() override {
        ASSERT_TRUE(pair.settle());
        ASSERT_EQ(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    }
    void TearDown() override {
        close(ends[0]);
        close(ends[1]);
    }
    int poll_all(std::vector<pollfd>& fds, int64_t timeout_ms) const {
        return poll_streams(fds.data(), fds.size(), timeout_ms < 0 ? kForever : timeout_ms * kMs, nullptr);
    }
    StreamPair pair;
    int ends[2] = {-1, -1};
};

TEST_F(PollSetTest, KnowsWhenItIsNeeded) {
    const pollfd ordinary[] = {{ends[0], POLLIN, 0}, {-1, POLLIN, 0}, {1 << 30, POLLIN, 0}};
    EXPECT_FALSE(poll_needs_us(ordinary, 3));
    const pollfd mixed[] = {{ends[0], POLLIN, 0}, {pair.acceptor_fd(), POLLIN, 0}};
    EXPECT_TRUE(poll_needs_us(mixed, 2));
}

TEST_F(PollSetTest, MixedReadiness) {
    std::vector<pollfd> fds = {{pair.acceptor_fd(), POLLIN | POLLOUT, 0},
                               {ends[0], POLLIN, 0},
                               {-1, POLLIN, 55},
                               {pair.connector_fd(), POLLIN, 0}};
    EXPECT_EQ(poll_all(fds, 0), 1);
    EXPECT_EQ(fds[0].revents, POLLOUT);
    EXPECT_EQ(fds[1].revents, 0);
    EXPECT_EQ(fds[2].revents, 0);
    ASSERT_EQ(door_send(pair.connector_fd(), "a", 1), 1);
    ASSERT_EQ(write(ends[1], "x", 1), 1);
    EXPECT_EQ(poll_all(fds, 0), 2);
    EXPECT_EQ(fds[0].revents, POLLIN | POLLOUT);
    EXPECT_EQ(fds[1].revents, POLLIN);
    EXPECT_EQ(fds[3].revents, 0);
}

TEST_F(PollSetTest, ABadDescriptorIsReportedAsTheKernelDoes) {
    const int closed = dup(0);
    close(closed);
    std::vector<pollfd> fds = {{pair.acceptor_fd(), POLLIN, 0}, {closed, POLLIN, 0}};
    EXPECT_EQ(poll_all(fds, 1000), 1);
    EXPECT_EQ(fds[1].revents, POLLNVAL);
}

TEST_F(PollSetTest, ATimeoutIsKept) {
    std::vector<pollfd> fds = {{pair.acceptor_fd(), POLLIN, 0}, {ends[0], POLLIN, 0}};
    const int64_t start = now_ns();
    EXPECT_EQ(poll_all(fds, 40), 0);
    EXPECT_GE(now_ns() - start, 40 * kMs);
    EXPECT_LT(now_ns() - start, 2000 * kMs);
}

TEST_F(PollSetTest, IsWokenByAStreamByAnOrdinaryDescriptorAndByAnEnd) {
    for (int i = 0; i < 150; ++i) {
        std::vector<pollfd> fds = {{ends[0], POLLIN, 0}, {pair.acceptor_fd(), POLLIN, 0}};
        const bool stream = i % 2 == 0;
        std::thread other([&] {
            usleep(static_cast<useconds_t>(i * 10));
            if (stream)
                door_send(pair.connector_fd(), "a", 1);
            else if (write(ends[1], "x", 1) != 1)
                abort();
        });
        EXPECT_EQ(poll_all(fds, 10'000), 1) << i;
        other.join();
        EXPECT_EQ(fds[stream ? 1 : 0].revents, POLLIN);
        char byte;
        EXPECT_EQ(stream ? door_receive(pair.acceptor_fd(), &byte, 1) : read(ends[0], &byte, 1), 1);
    }
    std::vector<pollfd> fds = {{pair.acceptor_fd(), POLLIN | POLLRDHUP, 0}};
    std::thread closer([&] {
        usleep(20'000);
        pair.close_connector();
    });
    EXPECT_EQ(poll_all(fds, 10'000), 1);
    closer.join();
    EXPECT_EQ(fds[0].revents, POLLIN | POLLRDHUP);
}

TEST_F(PollSetTest, ASpinDoesNotKeepAnOrdinaryDescriptorWaiting) {
    const int64_t budget = spin_budget();
    set_spin_budget(400 * kMs);
    std::vector<pollfd> fds = {{pair.acceptor_fd(), POLLIN, 0}, {ends[0], POLLIN, 0}};
    // Who spins keeps it waiting each time; a machine that stops us for so long does so now and then.
    int64_t quickest = 5000 * kMs;
    for (int round = 0; round < 10 && quickest >= 200 * kMs; ++round) {
        // A wait that ended within the budget makes the next one spin.
        std::thread sender([&] {
            sys::sleep_ns(5 * kMs);
            door_send(pair.connector_fd(), "a", 1);
        });
        EXPECT_EQ(poll_all(fds, 5000), 1);
        sender.join();
        char byte;
        ASSERT_EQ(door_receive(pair.acceptor_fd(), &byte, 1), 1);
        ASSERT_EQ(write(ends[1], "x", 1), 1);
        const int64_t start = now_ns();
        EXPECT_EQ(poll_all(fds, 5000), 1);
        quickest = std::min(quickest, now_ns() - start);
        EXPECT_EQ(fds[1].revents, POLLIN);
        ASSERT_EQ(read(ends[0], &byte, 1), 1);
    }
    EXPECT_LT(quickest, 200 * kMs);
    set_spin_budget(budget);
}

TEST_F(PollSetTest, WaitsForRoom) {
    std::vector<char> bytes(1 << 20);
    while (door_send(pair.connector_fd(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
    std::vector<pollfd> fds = {{pair.connector_fd(), POLLOUT, 0}};
    EXPECT_EQ(poll_all(fds, 20), 0);
    std::thread reader([&] {
        usleep(20'000);
        EXPECT_EQ(door_receive(pair.acceptor_fd(), bytes.data(), bytes.size(), MSG_WAITALL), 1 << 20);
        EXPECT_EQ(door_receive(pair.acceptor_fd(), bytes.data(), bytes.size(), MSG_WAITALL), 1 << 20);
    });
    EXPECT_EQ(poll_all(fds, 10'000), 1);
    EXPECT_EQ(fds[0].revents, POLLOUT);
    reader.join();
}

TEST_F(PollSetTest, ALowWaterMarkAboveWhatThePeerMaySendIsNotWaitedFor) {
    pair.acceptor().shared->low_water.store(1U << 30);
    std::vector<char> bytes(1 << 16);
    while (door_send(pair.connector_fd(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
    std::vector<pollfd> fds = {{pair.acceptor_fd(), POLLIN, 0}};
    EXPECT_EQ(poll_all(fds, 1000), 1);
}

TEST_F(PollSetTest, MoreThanFitOnTheStack) {
    std::vector<pollfd> fds(1000, pollfd{ends[0], POLLIN, 0});
    fds[777] = {pair.acceptor_fd(), POLLIN, 0};
    EXPECT_EQ(poll_all(fds, 10), 0);
    ASSERT_EQ(door_send(pair.connector_fd(), "a", 1), 1);
    EXPECT_EQ(poll_all(fds, 1000), 1);
    EXPECT_EQ(fds[777].revents, POLLIN);
    ASSERT_EQ(write(ends[1], "x", 1), 1);
    EXPECT_EQ(poll_all(fds, 1000), 1000);
}

TEST_F(PollSetTest, ManyStreamsTellOfBytesRoomAndEnds) {
    // Of many the kernel's sockets are not asked one by one: their events have to be enough.
    constexpr size_t kPairs = 40;
    std::vector<StreamPair> many(kPairs);
    std::vector<pollfd> fds;
    for (StreamPair& one : many) {
        ASSERT_TRUE(one.settle());
        fds.push_back({one.acceptor_fd(), POLLIN | POLLRDHUP, 0});
    }
    EXPECT_EQ(poll_all(fds, 0), 0);
    EXPECT_EQ(poll_all(fds, 10), 0);
    for (size_t i = 0; i < kPairs; ++i) {
        const bool over = i % 3 == 0;
        std::thread other([&] {
            usleep(i % 2 == 0 ? 3000 : 0);
            if (over)
                many[i].close_connector();
            else
                door_send(many[i].connector_fd(), "a", 1);
        });
        EXPECT_EQ(poll_all(fds, 10'000), 1) << i;
        other.join();
        EXPECT_EQ(poll_all(fds, 0), 1) << i;
        EXPECT_EQ(fds[i].revents, over ? POLLIN | POLLRDHUP : POLLIN) << i;
        fds[i].fd = -1;
    }
    // A look that does not wait is enough, also where none has waited before.
    for (size_t i = 0; i < kPairs; ++i)
        fds[i] = {many[i].connector_fd(), POLLOUT, 0};
    for (size_t i = 0; i < kPairs; i += 3)
        fds[i].fd = -1;
    std::vector<char> bytes(1 << 20);
    while (door_send(many[1].connector_fd(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
    const int others = static_cast<int>(kPairs - (kPairs + 2) / 3 - 1);
    EXPECT_EQ(poll_all(fds, 0), others);
    EXPECT_EQ(fds[1].revents, 0);
    while (door_receive(many[1].acceptor_fd(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
    EXPECT_EQ(poll_all(fds, 0), others + 1);
}

TEST_F(PollSetTest, ASetOfStreamsIsReadable) {
    const int fd = epoll_create1(EPOLL_CLOEXEC);
    make_set(fd);
    epoll_event event{EPOLLIN, {}};
    ASSERT_EQ(find_set(fd)->control(fd, EPOLL_CTL_ADD, pair.acceptor_fd(), &event), 0);
    std::vector<pollfd> fds = {{fd, POLLIN, 0}};
    EXPECT_TRUE(poll_needs_us(fds.data(), 1));
    EXPECT_EQ(poll_all(fds, 10), 0);
    std::thread other([&] {
        usleep(20'000);
        door_send(pair.connector_fd(), "a", 1);
    });
    EXPECT_EQ(poll_all(fds, 10'000), 1);
    EXPECT_EQ(fds[0].revents, POLLIN);
    other.join();
    door_close(fd);
}

TEST_F(PollSetTest, AKernelWaitHoldsTheHandOverOff) {
    TcpPair sockets;
    opt_in(sockets.connector, Role::kConnector, 1000);
    Stream& acceptor = opt_in(sockets.acceptor, Role::kAcceptor, 1000);
    pollfd one{sockets.acceptor, POLLIN, 0};
    bool moved = true;
    const auto wait = [](void* argument) {
        return static_cast<Stream*>(argument)->kernel_readers.load() == 1 ? 42 : -1;
    };
    EXPECT_EQ(poll_kernel(&one, 1, moved, wait, &acceptor), 42);
    EXPECT_FALSE(moved);
    EXPECT_EQ(acceptor.kernel_readers.load(), 0U);
    pollfd fused{pair.acceptor_fd(), POLLIN, 0};
    poll_kernel(&fused, 1, moved, wait, &acceptor);
    EXPECT_TRUE(moved) << "that one is not the kernel's to wait for";
    EXPECT_EQ(pair.acceptor().kernel_readers.load(), 0U);
    for (int* end : {&sockets.connector, &sockets.acceptor}) {
        door_close(*end);
        *end = -1;
    }
}

}  // namespace
}  // namespace loopfast
