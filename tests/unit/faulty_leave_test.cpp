// What the other end may do between two steps of an end that leaves the ring.
#include <gtest/gtest.h>

#include <thread>

#include "base/inject.h"
#include "stream_pair.h"
#include "wait/poll_set.h"

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

// Bytes go back to the kernel as soon as it can take them. What kept it may be want of memory, of whose end
// no event tells: so who sleeps meanwhile looks again by himself.
TEST(FaultyLeave, APollLooksAgainWhileBytesHaveToGoBack) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "question", 8), 8);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    inject_fault(SYS_sendto, ENOMEM, 1'000'000);
    std::thread memory([] {
        usleep(150'000);
        for (int i = 0; i < 5000 && injected_so_far() == 0; ++i)
            usleep(1000);
        EXPECT_GT(injected_faults(), 0);
    });
    std::thread peer([&] {
        char text[100];
        EXPECT_EQ(::recv(pair.acceptor_fd(), text, sizeof text, 0), 8);
        EXPECT_EQ(::send(pair.acceptor_fd(), "answer", 6, 0), 6);
    });
    pollfd one{pair.connector_fd(), POLLIN, 0};
    const int found = poll_streams(&one, 1, 10'000'000'000, nullptr);
    EXPECT_EQ(found, 1) << "it sleeps, and the question lies in the ring";
    if (found != 1)
        ::shutdown(pair.acceptor_fd(), SHUT_RDWR);
    memory.join();
    peer.join();
}

}  // namespace
}  // namespace loopfast
