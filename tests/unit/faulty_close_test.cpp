// Another thread closes the number under a call that is about to sleep, and has it used again at once: the
// call goes on with its connection.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "base/inject.h"
#include "stream/setup.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

std::atomic<bool> there{false};
std::atomic<bool> go_on{false};

template <typename Condition> void wait_until(Condition condition) {
    bool met = condition();
    for (int i = 0; i < 20'000 && !met; ++i) {
        usleep(1000);
        met = condition();
    }
    EXPECT_TRUE(met);
}

/// Until whoever waits on it has gone to sleep, as far as can be told.
void await_sleep(const Stream& stream) {
    wait_until([&, before = 0L]() mutable {
        const long now = static_cast<long>(stream.shared->counters.sleeps.load());
        usleep(20'000);
        return now != 0 && std::exchange(before, now) == now;
    });
}

TEST(Close, NumberUsedAgainBeforeASleepIsPrepared) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    Stream& stream = pair.acceptor();
    const int number = pair.acceptor_fd();
    stream.shared->receive_timeout.store(30'000'000'000);
    // The second descriptor that a thread's first sleep is about is the socket.
    inject_action(
        SYS_epoll_ctl,
        [] {
            there.store(true);
            wait_until([] { return go_on.load(); });
        },
        1, EPOLL_CTL_ADD);
    long result = 0;
    char text[16];
    std::thread reader([&] { result = door_receive(number, text, sizeof text); });
    wait_until([] { return there.load(); });
    pair.close_acceptor();
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    EXPECT_TRUE(pipe_ends[0] == number || pipe_ends[1] == number);
    go_on.store(true);
    // The link tells of this, and of what comes after it only the socket.
    EXPECT_TRUE(leave(pair.connector(), pair.connector_fd(), Reason::kPolicy));
    wait_until([&] { return stream.shared->peer_left.load() != 0; });
    await_sleep(stream);
    EXPECT_EQ(door_send(pair.connector_fd(), "later", 5), 5);
    reader.join();
    EXPECT_EQ(result, 5);
    injected_faults();
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

std::atomic<bool> used_again{false};

/// The next poll that is not the main thread's comes to a halt until the number is used again, or for a
/// while, if that waits for the poll.
void halt_a_poll() {
    if (gettid() == getpid()) {
        inject_action(SYS_ppoll, halt_a_poll);
        return;
    }
    there.store(true);
    for (int i = 0; i < 200 && !used_again.load(); ++i)
        usleep(1000);
}

TEST(Close, NumberUsedAgainBetweenALookAndAReceive) {
    there.store(false);
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    Stream& stream = pair.acceptor();
    const int number = pair.acceptor_fd();
    stream.shared->receive_timeout.store(30'000'000'000);
    long result = 0;
    char text[16] = {};
    std::thread reader([&] { result = door_receive(number, text, sizeof text); });
    await_sleep(stream);
    inject_action(SYS_ppoll, halt_a_poll);
    EXPECT_TRUE(leave(pair.connector(), pair.connector_fd(), Reason::kPolicy));
    wait_until([] { return there.load(); });
    EXPECT_EQ(door_send(pair.connector_fd(), "right", 5), 5);
    pair.close_acceptor();
    int others[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, others), 0);
    EXPECT_EQ(others[0], number);
    EXPECT_EQ(write(others[1], "wrong", 5), 5);
    used_again.store(true);
    reader.join();
    EXPECT_EQ(result, 5);
    EXPECT_STREQ(text, "right");
    injected_faults();
    close(others[0]);
    close(others[1]);
}

}  // namespace
}  // namespace loopfast
