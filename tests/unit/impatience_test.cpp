// Rings with TCP_USER_TIMEOUT that are full: left when nothing is taken out of them for so long, and only
// then. The tests make the steward's rounds themselves.
#include "wait/impatience.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "stream_pair.h"

namespace loopfast {
namespace {

class Impatience : public ::testing::Test {
protected:
    void SetUp() override {
        start_library();
        asked = 0;
        connect_impatience([] {
            ++asked;
            return has_steward;
        });
        has_steward = true;
        forget_full_rings();
        ASSERT_TRUE(pair_.settle());
        set_timeout(20);
    }
    void TearDown() override { forget_full_rings(); }

    void set_timeout(uint32_t milliseconds) {
        pair_.connector().shared->user_timeout.store(milliseconds, std::memory_order_relaxed);
    }
    /// As much as there is room for, in one call more than that.
    size_t fill() const {
        const std::vector<char> bytes(65536);
        size_t sent = 0;
        for (;;) {
            const long part = door_send(pair_.connector_fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
            if (part < 0)
                return sent;
            sent += static_cast<size_t>(part);
        }
    }
    void take(size_t size) const {
        std::vector<char> bytes(size);
        ASSERT_EQ(door_receive(pair_.acceptor_fd(), bytes.data(), size, MSG_WAITALL),
                  static_cast<long>(size));
    }
    bool on_the_ring() { return pair_.connector().fused(); }
    static void wait() { std::this_thread::sleep_for(std::chrono::milliseconds(30)); }

    StreamPair pair_;
    static inline int asked = 0;
    static inline bool has_steward = true;
};

TEST_F(Impatience, NobodyLooksWhileThereIsRoom) {
    ASSERT_GT(door_send(pair_.connector_fd(), "x", 1), 0);
    EXPECT_EQ(asked, 0);
    EXPECT_FALSE(leave_full_rings());
}

TEST_F(Impatience, NobodyLooksWithoutTheOption) {
    set_timeout(0);
    fill();
    polled_without_room(pair_.connector());
    EXPECT_EQ(asked, 0);
    EXPECT_FALSE(leave_full_rings());
}

TEST_F(Impatience, AFullRingOutOfWhichNothingIsTakenIsLeft) {
    fill();
    EXPECT_EQ(asked, 1);
    EXPECT_TRUE(leave_full_rings());  // the time begins
    EXPECT_TRUE(on_the_ring());
    wait();
    EXPECT_FALSE(leave_full_rings());
    EXPECT_FALSE(on_the_ring());
}

TEST_F(Impatience, NotBeforeItsTime) {
    set_timeout(1'000'000);
    fill();
    EXPECT_TRUE(leave_full_rings());
    wait();
    EXPECT_TRUE(leave_full_rings());
    EXPECT_TRUE(on_the_ring());
    set_timeout(0);  // the program thinks better of it
    EXPECT_FALSE(leave_full_rings());
    EXPECT_TRUE(on_the_ring());
}

TEST_F(Impatience, WhoeverTakesALittleIsWaitedFor) {
    fill();
    EXPECT_TRUE(leave_full_rings());
    for (int i = 0; i < 4; ++i) {
        wait();
        take(100);
        EXPECT_TRUE(leave_full_rings());
        ASSERT_TRUE(on_the_ring());
    }
    wait();
    EXPECT_FALSE(leave_full_rings());
    EXPECT_FALSE(on_the_ring());
}

TEST_F(Impatience, RoomEndsIt) {
    const size_t all = fill();
    EXPECT_TRUE(leave_full_rings());
    take(all);
    wait();
    EXPECT_FALSE(leave_full_rings());
    EXPECT_TRUE(on_the_ring());
    fill();
    EXPECT_EQ(asked, 2);
    EXPECT_TRUE(leave_full_rings());
}

TEST_F(Impatience, APollCountsAsWell) {
    fill();
    forget_full_rings();
    polled_without_room(pair_.connector());
    polled_without_room(pair_.connector());  // is known
    EXPECT_EQ(asked, 2);
    EXPECT_TRUE(leave_full_rings());
    wait();
    leave_full_rings();
    EXPECT_FALSE(on_the_ring());
}

TEST_F(Impatience, WithoutAStewardNothingIsKept) {
    has_steward = false;
    fill();
    EXPECT_FALSE(leave_full_rings());
    EXPECT_TRUE(on_the_ring());
}

TEST_F(Impatience, AClosedStreamIsForgotten) {
    fill();
    EXPECT_TRUE(leave_full_rings());
    pair_.close_connector();
    wait();
    EXPECT_FALSE(leave_full_rings());
}

// What was in the ring is read before what goes over the kernel lane after it.
TEST_F(Impatience, OrderIsKept) {
    const size_t all = fill();
    leave_full_rings();
    wait();
    leave_full_rings();
    ASSERT_FALSE(on_the_ring());
    ASSERT_EQ(door_send(pair_.connector_fd(), "after", 5), 5);
    take(all);
    char text[5];
    ASSERT_EQ(door_receive(pair_.acceptor_fd(), text, sizeof text, MSG_WAITALL), 5);
    EXPECT_EQ(std::string(text, sizeof text), "after");
}

}  // namespace
}  // namespace loopfast
