// Where memory runs out for longer than one call: what a connection needs at such a moment it does without,
// or tries again.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <functional>
#include <thread>

#include <gtest/gtest.h>

#include "base/inject.h"
#include "stream_pair.h"
#include "wait/poll_set.h"
#include "wait/steward.h"

namespace loopfast {
namespace {

constexpr int kMany = 1'000'000;
constexpr int64_t kSecond = 1'000'000'000;

void limit_waits(int fd) {
    const timeval patience{5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

/// Waits until calls have failed that some thread makes again and again; then they succeed.
bool some_failed() {
    for (int i = 0; i < 5000 && injected_so_far() < 2; ++i)
        usleep(1000);
    return injected_faults() >= 2;
}

/// The peer left the ring with bytes unread, and there is no memory to send them with over the kernel lane.
/// No thread of ours sees to it, and the program sleeps until an answer comes: it sends them when there is
/// some.
void sends_though_asleep(const std::function<void(int fd)>& await_answer) {
    start_library();
    steward_hooks = {};
    StreamPair pair;
    limit_waits(pair.connector_fd());
    limit_waits(pair.acceptor_fd());
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "unread", 6), 6);
    inject_fault(SYS_sendto, ENOMEM, kMany);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    std::thread sleeper([&] { await_answer(pair.connector_fd()); });
    EXPECT_TRUE(some_failed());
    char bytes[8];
    EXPECT_EQ(::recv(pair.acceptor_fd(), bytes, 6, MSG_WAITALL), 6) << "they have not been sent";
    EXPECT_EQ(::send(pair.acceptor_fd(), "!", 1, 0), 1);
    sleeper.join();
}

void take_answer(int fd) {
    char byte = 0;
    EXPECT_EQ(door_receive(fd, &byte, 1), 1);
    EXPECT_EQ(byte, '!');
}

TEST(WithoutMemory, ACallThatWaitsSendsWhatThePeerLeft) { sends_though_asleep(take_answer); }

TEST(WithoutMemory, APollSendsWhatThePeerLeft) {
    sends_though_asleep([](int fd) {
        pollfd one{fd, POLLIN, 0};
        EXPECT_EQ(poll_streams(&one, 1, 5 * kSecond, nullptr), 1);
        take_answer(fd);
    });
}

TEST(WithoutMemory, AnEpollSetSendsWhatThePeerLeft) {
    sends_though_asleep([](int fd) {
        const int set_fd = epoll_create1(EPOLL_CLOEXEC);
        make_set(set_fd);
        epoll_event event{EPOLLIN, {}};
        EXPECT_EQ(find_set(set_fd)->control(set_fd, EPOLL_CTL_ADD, fd, &event), 0);
        EXPECT_EQ(find_set(set_fd)->wait(set_fd, &event, 1, 5 * kSecond, nullptr), 1);
        take_answer(fd);
        door_close(set_fd);
    });
}

/// With nobody who could do it later, a close or a shutdown waits until what the peer left has gone before
/// it.
void ends_behind_the_bytes(const std::function<void(StreamPair&)>& end) {
    start_library();
    steward_hooks = {};
    StreamPair pair;
    limit_waits(pair.acceptor_fd());
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "unread", 6), 6);
    inject_fault(SYS_sendto, ENOMEM, kMany);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    std::thread closer([&] { end(pair); });
    EXPECT_TRUE(some_failed());
    char bytes[8];
    EXPECT_EQ(::recv(pair.acceptor_fd(), bytes, sizeof bytes, MSG_WAITALL), 6);
    closer.join();
}

TEST(WithoutMemory, ACloseComesAfterTheBytes) {
    ends_behind_the_bytes([](StreamPair& pair) { pair.close_connector(); });
}

TEST(WithoutMemory, AShutdownComesAfterTheBytes) {
    ends_behind_the_bytes([](StreamPair& pair) { door_shutdown(pair.connector_fd(), SHUT_WR); });
}

TEST(WithoutMemory, TheStewardSendsWhatThePeerLeft) {
    start_library();
    connect_steward();
    StreamPair pair;
    limit_waits(pair.acceptor_fd());
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "unread", 6), 6);
    inject_fault(SYS_sendto, ENOBUFS, kMany);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    EXPECT_TRUE(some_failed());
    char bytes[8];
    EXPECT_EQ(::recv(pair.acceptor_fd(), bytes, 6, MSG_WAITALL), 6);
}

/// The steward's set had no memory for the link when it came.
TEST(WithoutMemory, TheStewardIsAskedAgain) {
    start_library();
    steward_hooks = {};
    StreamPair pair;
    limit_waits(pair.acceptor_fd());
    ASSERT_TRUE(pair.settle());
    connect_steward();
    inject_fault(SYS_epoll_ctl, ENOSPC, kMany, 0, EPOLL_CTL_ADD);
    EXPECT_EQ(door_send(pair.connector_fd(), "un", 2), 2);
    EXPECT_GT(injected_faults(), 0);
    ASSERT_EQ(door_send(pair.connector_fd(), "read", 4), 4);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    char bytes[8];
    EXPECT_EQ(::recv(pair.acceptor_fd(), bytes, 6, MSG_WAITALL), 6);
}

/// A signal that is pending ends even a poll that does not wait, if nothing is ready: this tells nothing of
/// the peer. (It was taken for a hang-up of the link, and so for a peer that had left the ring.)
TEST(Interrupted, ALookIsMadeAgain) {
    start_library();
    connect_steward();
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    int failed = 0;
    for (int after = 0; after < 40; ++after) {
        inject_fault(SYS_ppoll, EINTR, 1, after);
        for (int i = 0; i < 8; ++i) {
            char byte = 'x';
            usleep(1500);  // after a while without one the kernel is asked
            ASSERT_EQ(door_send(pair.fd(i % 2), &byte, 1), 1);
            ASSERT_EQ(door_receive(pair.fd(1 - i % 2), &byte, 1), 1);
            EXPECT_EQ(door_receive(pair.fd(1 - i % 2), &byte, 1, MSG_DONTWAIT), -EAGAIN);
            pollfd one{pair.fd(i % 2), POLLIN | POLLOUT, 0};
            EXPECT_EQ(poll_streams(&one, 1, 0, nullptr), 1);
            EXPECT_EQ(one.revents, POLLOUT);
        }
        failed += injected_faults();
        ASSERT_TRUE(both_in_ring(pair.connector()) && both_in_ring(pair.acceptor())) << after;
    }
    EXPECT_GT(failed, 20);
}

class WithoutMemoryInASet : public ::testing::Test {
protected:
    void SetUp() override {
        start_library();
        connect_steward();
        fd_ = epoll_create1(EPOLL_CLOEXEC);
    }
    void TearDown() override { door_close(fd_); }
    int add(int target) {
        epoll_event event{EPOLLIN, {}};
        event.data.fd = target;
        EpollSet* const set = find_set(fd_);
        return set != nullptr ? set->control(fd_, EPOLL_CTL_ADD, target, &event)
                              : control_unknown_set(fd_, EPOLL_CTL_ADD, target, &event);
    }
    /// A byte from the other end is reported.
    void expect_report(StreamPair& pair) {
        ASSERT_EQ(door_send(pair.connector_fd(), "x", 1), 1);
        epoll_event event{};
        EpollSet* const set = find_set(fd_);
        const int found = set != nullptr ? set->wait(fd_, &event, 1, 5 * kSecond, nullptr)
                                         : ::epoll_wait(fd_, &event, 1, 5000);
        EXPECT_EQ(found, 1);
        EXPECT_EQ(event.data.fd, pair.acceptor_fd());
        char byte;
        EXPECT_EQ(door_receive(pair.acceptor_fd(), &byte, 1), 1);
    }
    int fd_ = -1;
};

TEST_F(WithoutMemoryInASet, ASetThatIsNotKnownIsNotedAtItsFirstEntry) {
    ASSERT_EQ(find_set(fd_), nullptr) << "as one that came from another program";
    StreamPair pair;
    ASSERT_EQ(add(pair.acceptor_fd()), 0);
    EXPECT_NE(find_set(fd_), nullptr);
    EXPECT_EQ(add(pair.acceptor_fd()), -EEXIST);
    EXPECT_TRUE(pair.settle());
    expect_report(pair);
}

TEST_F(WithoutMemoryInASet, ASetThatIsNotKnownTakesFusedStreams) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(add(pair.acceptor_fd()), 0);
    EXPECT_TRUE(both_in_ring(pair.acceptor()));
    expect_report(pair);
}

TEST_F(WithoutMemoryInASet, AStreamWhoseEntryCannotBeNotedIsNotFused) {
    make_set(fd_);
    StreamPair pair;
    inject_fault(SYS_mmap, ENOMEM, kMany);
    ASSERT_EQ(add(pair.acceptor_fd()), 0) << "the program does not hear of it";
    EXPECT_GT(injected_faults(), 0);
    EXPECT_FALSE(pair.settle());
    EXPECT_EQ(pair.acceptor().shared->reason.load(), static_cast<uint32_t>(Reason::kLimit));
    expect_report(pair);
}

TEST_F(WithoutMemoryInASet, AFusedStreamThatCannotBeTakenInLeavesTheRing) {
    make_set(fd_);
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    inject_fault(SYS_mmap, ENOMEM, kMany);
    ASSERT_EQ(add(pair.acceptor_fd()), 0);
    EXPECT_GT(injected_faults(), 0);
    EXPECT_EQ(pair.acceptor().state(), State::kKernel);
    expect_report(pair);
}

TEST_F(WithoutMemoryInASet, AnEntryGoesBackToTheKernelWhenThereIsMemoryAgain) {
    make_set(fd_);
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(add(pair.acceptor_fd()), 0);
    inject_fault(SYS_epoll_ctl, ENOMEM, kMany, 0, EPOLL_CTL_ADD);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    std::thread later([] { EXPECT_TRUE(some_failed()); });
    expect_report(pair);
    later.join();
    expect_report(pair);
}

/// The set is the kernel's while a thread sleeps in it, and a stream in it is fused: the thread has to come
/// out, and nothing that could fail is needed for it.
TEST_F(WithoutMemoryInASet, AThreadInTheKernelsSetIsCalledOut) {
    make_set(fd_);
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    int other[2];
    ASSERT_EQ(pipe2(other, O_CLOEXEC), 0);
    ASSERT_EQ(add(pair.acceptor_fd()), 0);
    epoll_event event{};
    ASSERT_EQ(find_set(fd_)->control(fd_, EPOLL_CTL_DEL, pair.acceptor_fd(), &event), 0);
    ASSERT_EQ(add(other[0]), 0);
    std::thread sleeper([&] {
        epoll_event found{};
        EXPECT_EQ(find_set(fd_)->wait(fd_, &found, 1, 5 * kSecond, nullptr), 1);
        EXPECT_EQ(found.data.fd, pair.acceptor_fd());
    });
    usleep(20'000);
    inject_fault(SYS_epoll_ctl, ENOMEM, kMany, 0, EPOLL_CTL_ADD);
    ASSERT_EQ(add(pair.acceptor_fd()), 0);
    ASSERT_EQ(door_send(pair.connector_fd(), "x", 1), 1);
    sleeper.join();
    injected_faults();
    for (const int fd : other)
        close(fd);
}

TEST_F(WithoutMemoryInASet, AChildWithoutDescriptorsWaitsAllTheSame) {
    make_set(fd_);
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(add(pair.acceptor_fd()), 0);
    int pipes[2];
    ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
    ASSERT_EQ(add(pipes[0]), 0);
    expect_report(pair);
    find_set(fd_)->forked();  // a child has no hidden set of its own yet
    inject_fault(SYS_epoll_create1, EMFILE, kMany);
    expect_report(pair);
    ASSERT_EQ(::write(pipes[1], "x", 1), 1);
    epoll_event event{};
    EXPECT_EQ(find_set(fd_)->wait(fd_, &event, 1, 5 * kSecond, nullptr), 1) << "ordinary descriptors too";
    EXPECT_EQ(event.data.fd, pipes[0]);
    EXPECT_GT(injected_faults(), 0);
    for (const int fd : pipes)
        close(fd);
}

}  // namespace
}  // namespace loopfast
