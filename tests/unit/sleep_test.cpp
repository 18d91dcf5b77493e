// Arming: tokens, who takes them, and when a bell is rung; then sleeps that must end.
#include "stream/sleep.h"

#include <sys/ioctl.h>

#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "stream_pair.h"
#include "wait/sleeper.h"

namespace loopfast {
namespace {

class Arming : public ::testing::Test {
protected:
    void SetUp() override { ASSERT_TRUE(pair.settle()); }
    Untrusted<uint64_t>& word() { return pair.acceptor().in().sleep.consumer; }
    bool word_is(uint64_t value) { return word().load(std::memory_order_relaxed).equals(value); }
    uint64_t bells() const { return pair.connector().shared->counters.bells.load(); }
    StreamPair pair;
};

TEST_F(Arming, TokensAreNeverUsedTwice) {
    std::set<uint64_t> seen;
    for (int i = 0; i < 1000; ++i)
        EXPECT_TRUE(seen.insert(new_sleep_token()).second);
    std::vector<uint64_t> others;
    std::thread([&] {
        for (int i = 0; i < 1000; ++i)
            others.push_back(new_sleep_token());
    }).join();
    for (const uint64_t token : others)
        EXPECT_TRUE(seen.insert(token).second);
    EXPECT_EQ(seen.count(kAwake), 0U);
    EXPECT_EQ(seen.count(kAlwaysRing), 0U);
}

TEST_F(Arming, ASleeperIsRungOnceForEachArming) {
    const uint64_t before = bells();
    wake_consumer(pair.connector());
    EXPECT_EQ(bells(), before) << "nobody sleeps, nobody is rung";
    for (uint64_t i = 1; i <= 3; ++i) {
        const uint64_t token = new_sleep_token();
        arm_word(word(), token);
        EXPECT_TRUE(word_is(token));
        wake_consumer(pair.connector());
        EXPECT_TRUE(word_is(kAwake)) << "the token is taken away";
        EXPECT_EQ(bells(), before + i);
        wake_consumer(pair.connector());
        EXPECT_EQ(bells(), before + i);
    }
}

TEST_F(Arming, DisarmingTakesOnlyOnesOwnToken) {
    const uint64_t token = new_sleep_token();
    arm_word(word(), token);
    disarm_word(word(), token + 1);
    EXPECT_TRUE(word_is(token));
    disarm_word(word(), token);
    EXPECT_TRUE(word_is(kAwake));
    arm_word(word(), token);
    arm_word(word(), token);
    EXPECT_TRUE(word_is(token)) << "the same sleep twice";
    disarm_word(word(), token);
}

TEST_F(Arming, TwoSleepersAreRungAtEachPublication) {
    arm_word(word(), new_sleep_token());
    arm_word(word(), new_sleep_token());
    EXPECT_TRUE(word_is(kAlwaysRing));
    const uint64_t before = bells();
    wake_consumer(pair.connector());
    EXPECT_EQ(bells(), before + 1);
    arm_word(word(), kAlwaysRing);
    wake_consumer(pair.connector());
    EXPECT_EQ(bells(), before + 2) << "never taken for one that was rung before";
}

TEST_F(Arming, OneSleepOverManyStreamsNeedsOneBell) {
    StreamPair other;
    ASSERT_TRUE(other.settle());
    const uint64_t token = new_sleep_token();
    arm_word(word(), token);
    arm_word(other.acceptor().in().sleep.consumer, token);
    const uint64_t before = bells() + other.connector().shared->counters.bells.load();
    wake_consumer(pair.connector());
    wake_consumer(other.connector());
    EXPECT_EQ(bells() + other.connector().shared->counters.bells.load(), before + 1);
}

TEST_F(Arming, WithoutKnowingTheProcessEachIsRung) {
    StreamPair other;
    ASSERT_TRUE(other.settle());
    pair.connector().peer_pid = other.connector().peer_pid = 0;
    const uint64_t token = new_sleep_token();
    arm_word(word(), token);
    arm_word(other.acceptor().in().sleep.consumer, token);
    const uint64_t before = bells() + other.connector().shared->counters.bells.load();
    wake_consumer(pair.connector());
    wake_consumer(other.connector());
    EXPECT_EQ(bells() + other.connector().shared->counters.bells.load(), before + 2);
}

TEST_F(Arming, ThousandsOfBellsNeverFillTheLink) {
    for (int i = 0; i < 3000; ++i) {
        const uint64_t token = new_sleep_token();
        arm(pair.acceptor(), word(), token);
        wake_consumer(pair.connector());
        ASSERT_TRUE(word_is(kAwake));
    }
    int waiting = 0;
    ASSERT_EQ(ioctl(pair.acceptor().link.load(), FIONREAD, &waiting), 0);
    EXPECT_LT(waiting, 200);
    EXPECT_GT(waiting, 0);
}

TEST(Sleep, ReceiverIsWoken) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    pair.acceptor().shared->receive_timeout.store(20'000'000'000);
    for (int i = 0; i < 200; ++i) {
        const uint64_t sleeps = pair.acceptor().shared->counters.sleeps.load();
        std::thread sleeper([&] {
            char byte;
            ASSERT_EQ(door_receive(pair.acceptor_fd(), &byte, 1), 1);
        });
        // Half of the times once it sleeps, otherwise at any moment before.
        for (int turn = 0; i % 2 == 0 && turn < 10'000; ++turn) {
            if (pair.acceptor().shared->counters.sleeps.load() != sleeps)
                break;
            usleep(100);
        }
        ASSERT_EQ(door_send(pair.connector_fd(), "w", 1), 1);
        sleeper.join();
        ASSERT_FALSE(testing::Test::HasFatalFailure());
    }
}

TEST(Sleep, SenderIsWokenWhenThereIsRoom) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    constexpr long kSize = 20 << 20;
    pair.connector().shared->send_timeout.store(20'000'000'000);
    std::thread sender([&] {
        const std::vector<char> bytes(kSize, 'x');
        EXPECT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), kSize);
    });
    std::vector<char> bytes(1 << 20);
    long total = 0;
    while (total < kSize) {
        if (total % (4 << 20) == 0)
            usleep(20'000);  // the sender runs into the full ring
        const long size = door_receive(pair.acceptor_fd(), bytes.data(), bytes.size());
        ASSERT_GT(size, 0);
        total += size;
    }
    sender.join();
}

TEST(Sleep, AnEndWakesTheReceiver) {
    for (const bool close_it : {true, false}) {
        StreamPair pair;
        ASSERT_TRUE(pair.settle());
        pair.acceptor().shared->receive_timeout.store(20'000'000'000);
        const uint64_t sleeps = pair.acceptor().shared->counters.sleeps.load();
        std::thread sleeper([&] {
            char byte;
            EXPECT_EQ(door_receive(pair.acceptor_fd(), &byte, 1), 0);
        });
        while (pair.acceptor().shared->counters.sleeps.load() == sleeps)
            usleep(100);
        EXPECT_TRUE(close_it || door_shutdown(pair.connector_fd(), SHUT_WR) == 0);
        if (close_it)
            pair.close_connector();
        sleeper.join();
    }
}

TEST(Sleep, ClosingWhileAnotherThreadWaitsIsSafe) {
    // What the waiter gets is for the front door's tests; here its segment must not vanish under it.
    for (int i = 0; i < 50; ++i) {
        StreamPair pair;
        ASSERT_TRUE(pair.settle());
        pair.acceptor().shared->receive_timeout.store(50'000'000);
        const int fd = pair.acceptor_fd();
        std::thread sleeper([&] {
            char byte;
            const long result = door_receive(fd, &byte, 1);
            EXPECT_LE(result, 0);
        });
        usleep(static_cast<useconds_t>(i * 50));
        if (find_stream(fd) != nullptr && pair.acceptor().waiters.load() != 0)
            pair.close_acceptor();
        sleeper.join();
    }
}

TEST(Sleep, APassingDeadlineIsATimeout) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const int64_t start = now_ns();
    EXPECT_EQ(wait_for(pair.acceptor(), pair.acceptor_fd(), Want::kReceive, start, {}), WaitResult::kTimeout);
    WaitResult result = WaitResult::kReady;
    for (int i = 0; i < 10 && result == WaitResult::kReady; ++i)
        result = wait_for(pair.acceptor(), pair.acceptor_fd(), Want::kReceive, start + 30'000'000, {});
    EXPECT_EQ(result, WaitResult::kTimeout);
    EXPECT_GE(now_ns() - start, 30'000'000);
    EXPECT_EQ(wait_for(pair.acceptor(), pair.acceptor_fd(), Want::kSend, start, {}), WaitResult::kReady);
}

}  // namespace
}  // namespace loopfast
