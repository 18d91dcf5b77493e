// Leaving the ring while others are at work: threads of ours that sleep, a setup, the other end that leaves
// or ends at the same time. models/leave.pml has all interleavings; here are those that once went wrong.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "link/link.h"
#include "stream/setup.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

constexpr int64_t kLimit = 5'000'000'000;

/// Receives until the connection ends or `wanted` bytes are there; every wait is limited.
std::string receive_all(int fd, size_t wanted) {
    const timeval limit{5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    find_stream(fd)->shared->receive_timeout.store(kLimit);
    std::string got;
    while (got.size() < wanted) {
        char text[4096];
        const long size = door_receive(fd, text, sizeof text);
        if (size <= 0)
            break;
        got.append(text, static_cast<size_t>(size));
    }
    return got;
}

TEST(Leave, BothAtOnceLoseNothing) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "from-connector.", 15), 15);
    ASSERT_EQ(door_send(pair.acceptor_fd(), "from-acceptor.", 14), 14);
    // Neither has heard of the other when it leaves.
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    const bool left = leave(pair.connector(), pair.connector_fd(), Reason::kPolicy);
    // The acceptor's bytes are in the ring and nobody can send them again: the connector has to stay for
    // them.
    EXPECT_FALSE(left);
    EXPECT_EQ(receive_all(pair.connector_fd(), 14), "from-acceptor.");
    EXPECT_EQ(receive_all(pair.acceptor_fd(), 15), "from-connector.");
    EXPECT_TRUE(leave(pair.connector(), pair.connector_fd(), Reason::kPolicy));
    ASSERT_EQ(door_send(pair.acceptor_fd(), "later", 5), 5);
    EXPECT_EQ(receive_all(pair.connector_fd(), 5), "later");
}

// One that is there takes them back, and has them all in the kernel before the other goes.
TEST(Leave, WhatAPeerTakesBackIsNotKept) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const std::string bytes(20'000, 'w');
    ASSERT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), 20'000);
    std::thread steward([&] {
        while (!said_that_it_left(pair.connector()))
            std::this_thread::yield();
        EXPECT_TRUE(return_to_kernel(pair.connector(), pair.connector_fd()));
    });
    EXPECT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy, Unread::kWaitedFor));
    steward.join();
    EXPECT_EQ(pair.acceptor().state(), State::kKernel);
    EXPECT_EQ(receive_all(pair.acceptor_fd(), bytes.size()), bytes);
}

/// Puts bytes into the ring as a send does that was in the middle of it.
void write_late(const Stream& stream, const std::string& bytes) {
    const iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    for (size_t done = 0; done < bytes.size();) {
        Buffers from(&part, 1);
        from.skip(done);
        const RingResult now =
            stream.writer().write(from, bytes.size() - done, stream.segment.capacity, true);
        ASSERT_GT(now.size, 0U);
        done += now.size;
    }
}

// The peer is stopped, or its process has no thread that would take anything back.
TEST(Leave, WhatAPeerThatStandsStillDoesNotTakeBackIsKept) {
    for (const size_t late : {0U, 3U, 100'000U}) {
        StreamPair pair;
        ASSERT_TRUE(pair.settle());
        const std::string bytes(20'000, 'w');
        const std::string under_way(late, 'u');
        ASSERT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), 20'000);
        ASSERT_FALSE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy, Unread::kWaitedFor));
        write_late(pair.connector(), under_way);
        char first[10];
        ASSERT_EQ(door_receive(pair.acceptor_fd(), first, sizeof first), 10);
        ASSERT_EQ(door_send(pair.connector_fd(), "newer", 5), 5);
        EXPECT_FALSE(has_to_return(pair.connector()));
        EXPECT_EQ(receive_all(pair.acceptor_fd(), bytes.size() - 10 + late + 5),
                  bytes.substr(10) + under_way + "newer");
        ASSERT_EQ(door_send(pair.acceptor_fd(), "back", 4), 4);
        EXPECT_EQ(receive_all(pair.connector_fd(), 4), "back");
        pair.close_connector();
        EXPECT_EQ(receive_all(pair.acceptor_fd(), 1), "");
    }
}

// A filter appears: what is unread was sent before it, and does not depend on a peer that may be stopped.
TEST(Leave, WhatIsKeptAtOnceIsReadToItsEnd) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const std::string bytes(20'000, 'w');
    ASSERT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), 20'000);
    ASSERT_EQ(door_send(pair.acceptor_fd(), "answer", 6), 6);
    EXPECT_FALSE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kFilter, Unread::kKept));
    EXPECT_FALSE(pair.acceptor().out_in_ring()) << "what we send is where it is seen";
    // The answer is unread yet: who waits for room waits for the kernel's.
    EXPECT_NE(readiness(pair.acceptor(), pair.acceptor_fd(), Freshness::kRecent) & POLLOUT, 0U);
    // And so does the other end, which has nothing to take back, whatever lies in the ring.
    pair.connector().link_down.store(true);
    EXPECT_NE(readiness(pair.connector(), pair.connector_fd(), Freshness::kRecent) & POLLOUT, 0U);
    EXPECT_EQ(receive_all(pair.acceptor_fd(), bytes.size()), bytes);
    EXPECT_EQ(receive_all(pair.connector_fd(), 6), "answer");
    EXPECT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kFilter, Unread::kKept));
    ASSERT_EQ(door_send(pair.connector_fd(), "newer", 5), 5);
    EXPECT_FALSE(has_unsent(pair.connector()));
    EXPECT_EQ(receive_all(pair.acceptor_fd(), 5), "newer");
}

// One who leaves hangs up before he has left, and his own steward wakes for that.
TEST(Leave, OnesOwnStewardTakesNothingBack) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.acceptor_fd(), "answer.", 7), 7);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(door_send(pair.acceptor_fd(), "newer", 5), 5);
    EXPECT_TRUE(return_to_kernel(pair.acceptor(), pair.acceptor_fd()));
    EXPECT_EQ(receive_all(pair.connector_fd(), 12), "answer.newer");
}

StreamPair* handled = nullptr;
volatile long handler_got = -1;

// A handler on a signal stack of the usual size, 8 KiB, may be the one who finds that the peer left.
TEST(Leave, WhatWasNotReadGoesBackFromASmallStack) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const std::string bytes(20'000, 'w');
    ASSERT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), 20'000);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(::send(pair.acceptor_fd(), "x", 1, 0), 1);
#ifdef LOOPFAST_SANITIZED
    constexpr size_t kSize = 262'144;  // a sanitizer's frames are many times as large
#else
    constexpr size_t kSize = 8192;
#endif
    constexpr size_t kPage = 4096;
    void* const memory = mmap(nullptr, kSize + 16 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    stack_t stack{};
    stack.ss_sp = static_cast<char*>(memory) + 16 * kPage;
    stack.ss_size = kSize;
    ASSERT_EQ(mprotect(stack.ss_sp, kSize, PROT_READ | PROT_WRITE), 0);
    stack_t before;
    ASSERT_EQ(sigaltstack(&stack, &before), 0);
    handled = &pair;
    struct sigaction action {};
    action.sa_handler = [](int) {
        char byte;
        handler_got = door_receive(handled->connector_fd(), &byte, 1, MSG_DONTWAIT);
    };
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, nullptr);
    raise(SIGUSR1);
    EXPECT_EQ(handler_got, 1);
    EXPECT_EQ(receive_all(pair.acceptor_fd(), bytes.size()), bytes);
    sigaltstack(&before, nullptr);
    munmap(memory, kSize + 16 * kPage);
}

TEST(Leave, ThePeerThatClosesSendsWhatWasNotRead) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "last words", 10), 10);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    pair.close_connector();
    EXPECT_EQ(receive_all(pair.acceptor_fd(), 100), "last words");
}

TEST(Leave, ThePeerThatShutsDownSendsWhatWasNotRead) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "last words", 10), 10);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(door_shutdown(pair.connector_fd(), SHUT_WR), 0);
    EXPECT_EQ(receive_all(pair.acceptor_fd(), 100), "last words");
}

TEST(Leave, AnEndedPeersBytesKeepUsThere) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "last words", 10), 10);
    ASSERT_EQ(door_shutdown(pair.connector_fd(), SHUT_WR), 0);
    EXPECT_FALSE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    EXPECT_EQ(receive_all(pair.acceptor_fd(), 100), "last words");
}

// Who got the socket from the one that left may end its half at once and still read.
TEST(Leave, AHalfCloseAfterwardsIsNotADeath) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "question", 8), 8);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(shutdown(pair.acceptor_fd(), SHUT_WR), 0);
    EXPECT_EQ(receive_all(pair.connector_fd(), 1), "");  // the end; and what was not read goes back
    pair.close_connector();
    EXPECT_EQ(receive_all(pair.acceptor_fd(), 100), "question");
}

TEST(Leave, ASenderThatWaitsForRoomGoesOnOverTheKernel) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    pair.connector().shared->send_timeout.store(kLimit);
    const std::string much(16 << 20, 'm');
    std::atomic<long> sent{0};
    std::thread sender([&] {
        while (static_cast<size_t>(sent) < much.size()) {
            const long size =
                door_send(pair.connector_fd(), much.data(), much.size() - static_cast<size_t>(sent));
            if (size <= 0)
                return;
            sent += size;
        }
    });
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (pair.connector().shared->counters.sleeps.load() == 0 && std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(leave(pair.connector(), pair.connector_fd(), Reason::kPolicy));
    const timeval timeout{5, 0};
    setsockopt(pair.connector_fd(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    EXPECT_EQ(receive_all(pair.acceptor_fd(), much.size()).size(), much.size());
    sender.join();
    EXPECT_EQ(static_cast<size_t>(sent), much.size());
}

// The link is the whole family's: a relative's copy must not keep it up.
TEST(Leave, ThePeerHearsOfItThoughARelativeHoldsTheLink) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const int copy = dup(pair.acceptor().link.load());
    ASSERT_GE(copy, 0);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    EXPECT_TRUE(hung_up(pair.connector().link.load()));
    close(copy);
}

TEST(Leave, WhatIsPublishedAfterwardsArrivesWithoutAnotherCall) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(door_send(pair.connector_fd(), "one", 3), 3);  // and no call after it
    EXPECT_EQ(receive_all(pair.acceptor_fd(), 3), "one");
}

TEST(Leave, WaitsForASetupToEnd) {
    StreamPair pair(1000);
    Stream& stream = pair.connector();
    std::atomic<bool> inside{false};
    std::atomic<bool> over{false};
    std::thread other([&] {
        SetupScope scope(stream, pair.connector_fd());
        inside = scope.entered();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        over = true;
    });
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!inside && std::chrono::steady_clock::now() < limit)
        std::this_thread::yield();
    EXPECT_TRUE(leave(stream, pair.connector_fd(), Reason::kPolicy));
    EXPECT_TRUE(over);
    other.join();
    EXPECT_EQ(stream.state(), State::kKernel);
}

}  // namespace
}  // namespace loopfast
