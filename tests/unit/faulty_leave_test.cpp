// What the other end may do between two steps of an end that leaves the ring.
#include <gtest/gtest.h>

#include <string>

#include "base/inject.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

int dying = -1;

TEST(FaultyLeave, APeerThatIsKilledBetweenTheLookAndTheLeaving) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "last words", 10), 10);
    // Its kernel socket ends and nothing else does: as of a process that was killed. The first look finds it
    // alive.
    dying = pair.connector_fd();
    inject_action(
        SYS_ppoll, [] { ::shutdown(dying, SHUT_WR); }, 1);
    EXPECT_FALSE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(injected_faults(), 1);
    char text[100];
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 10);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 0);
    EXPECT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
}

TEST(FaultyLeave, APeerThatShutsDownBetweenTheLookAndTheLeavingSendsTheRest) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "last words", 10), 10);
    dying = pair.connector_fd();
    inject_action(
        SYS_ppoll, [] { door_shutdown(dying, SHUT_WR); }, 1);
    EXPECT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    ASSERT_EQ(injected_faults(), 1);
    char text[100];
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 10);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 0);
}

}  // namespace
}  // namespace loopfast
