// Hand-over: a connection moves to the ring at any byte of its stream, with any number of bytes under way in
// either direction, and every byte arrives once, in order. Random scripts in one thread, then two threads.
#include <netinet/tcp.h>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "exchange.h"

namespace loopfast {
namespace {

/// One direction's model: bytes sent and received so far. The two directions' bytes differ.
struct Flow {
    uint64_t sent = 0;
    uint64_t received = 0;
    uint64_t base;
};

class Script {
public:
    Script(StreamPair& pair, uint64_t seed) : pair_(pair), random_(seed) {}

    void run(int steps, size_t largest) {
        for (int i = 0; i < steps; ++i) {
            const int end = static_cast<int>(random_() % 2);
            const size_t size = 1 + random_() % largest;
            if (random_() % 2 == 0)
                send(end, size);
            else
                receive(end, size);
            if (::testing::Test::HasFatalFailure())
                return;
        }
        drain();
    }
    void send(int end, size_t size) {
        Flow& flow = flows_[end];
        const auto bytes = bytes_at(flow.base + flow.sent, size);
        const long result = door_send(pair_.fd(end), bytes.data(), size, MSG_DONTWAIT);
        ASSERT_TRUE(result > 0 || result == -EAGAIN) << result;
        flow.sent += result > 0 ? static_cast<uint64_t>(result) : 0;
    }
    void receive(int end, size_t size) {
        Flow& flow = flows_[1 - end];
        std::vector<unsigned char> bytes(size);
        const bool peek = random_() % 4 == 0;
        const long result =
            door_receive(pair_.fd(end), bytes.data(), size, MSG_DONTWAIT | (peek ? MSG_PEEK : 0));
        ASSERT_TRUE(result > 0 || result == -EAGAIN) << result;
        if (result <= 0)
            return;
        const auto count = static_cast<size_t>(result);
        ASSERT_LE(flow.received + count, flow.sent);
        ASSERT_EQ(first_wrong(bytes.data(), flow.base + flow.received, count), count)
            << "after " << flow.received << " bytes";
        if (!peek)
            flow.received += count;
    }
    void drain() {
        const int64_t end_of_time = now_ns() + 10'000'000'000;
        for (int end = 0; end < 2; ++end)
            while (flows_[1 - end].received < flows_[1 - end].sent) {
                receive(end, 65536);
                ASSERT_LT(now_ns(), end_of_time) << "bytes were lost";
                if (::testing::Test::HasFatalFailure())
                    return;
            }
    }

private:
    StreamPair& pair_;
    std::mt19937_64 random_;
    Flow flows_[2] = {{0, 0, 0}, {0, 0, uint64_t{1} << 40}};
};

TEST(Handover, AtEveryByteOfAShortStream) {
    // The threshold is the byte; the reader lags by none or by some.
    for (uint64_t threshold = 0; threshold <= 64; ++threshold) {
        for (const int lag : {0, 1, 5, 40}) {
            SCOPED_TRACE(testing::Message() << "threshold " << threshold << ", lag " << lag);
            StreamPair pair(threshold);
            Script script(pair, 1);
            for (int i = 0; i < 150; ++i) {
                script.send(0, 1);
                if (i >= lag)
                    script.receive(1, 1);
                if (i % 3 == 0)
                    script.send(1, 1);
                if (i % 3 == 0 && i >= lag)
                    script.receive(0, 1);
                ASSERT_FALSE(HasFatalFailure());
            }
            script.drain();
            ASSERT_FALSE(HasFatalFailure());
            // The connector looks after its offer at ever larger distances: some more turns settle it.
            for (int i = 0; i < 300 && !(both_in_ring(pair.connector()) && both_in_ring(pair.acceptor()));
                 ++i) {
                script.send(0, 1);
                script.drain();
                script.send(1, 1);
                script.drain();
                ASSERT_FALSE(HasFatalFailure());
            }
            EXPECT_TRUE(both_in_ring(pair.connector()));
            EXPECT_TRUE(both_in_ring(pair.acceptor()));
        }
    }
}

TEST(Handover, RandomScripts) {
    for (uint64_t seed = 1; seed <= 150; ++seed) {
        SCOPED_TRACE(testing::Message() << "seed " << seed);
        std::mt19937_64 random(seed);
        StreamPair pair(random() % 3 == 0 ? 0 : random() % 3000);
        Script script(pair, seed);
        const size_t sizes[] = {1, 20, 500, 20'000};
        script.run(400, sizes[random() % 4]);
        ASSERT_FALSE(HasFatalFailure());
    }
}

TEST(Handover, ThreadsThatSendAndReceiveMeanwhile) {
    for (int round = 0; round < kRounds; ++round) {
        SCOPED_TRACE(round);
        const size_t largest = round % 3 == 0 ? 100 : round % 3 == 1 ? 5000 : 200'000;
        const uint64_t total = largest == 100 ? kMuch / 16 : kMuch;
        StreamPair pair(static_cast<uint64_t>(round) * 1777 % 9000);
        // Without opting for it a writer could outrun the threshold by what the kernel buffers.
        std::thread other([&] { exchange(pair.acceptor_fd(), kOtherWay, 0, total, 7, largest); });
        exchange(pair.connector_fd(), 0, kOtherWay, total, 9, largest);
        other.join();
        ASSERT_FALSE(HasFatalFailure());
    }
}

TEST(Handover, ThreadsThatTakeTurns) {
    for (int round = 0; round < kRounds; ++round) {
        StreamPair pair(static_cast<uint64_t>(round) * 13 % 200);
        constexpr int kTurns = 2000;
        const int on = 1;  // else the kernel lane takes 40 ms for a message in two pieces
        setsockopt(pair.connector_fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(pair.acceptor_fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        std::thread other([&] {
            for (uint64_t i = 0; i < kTurns; ++i) {
                receive_all(pair.acceptor_fd(), i * 7, 7, i, 7);
                send_all(pair.acceptor_fd(), kOtherWay + i * 5, 5, i, 5);
                ASSERT_FALSE(HasFatalFailure());
            }
        });
        for (uint64_t i = 0; i < kTurns; ++i) {
            send_all(pair.connector_fd(), i * 7, 7, i, 3);
            receive_all(pair.connector_fd(), kOtherWay + i * 5, 5, i, 5);
        }
        other.join();
        ASSERT_FALSE(HasFatalFailure());
        EXPECT_TRUE(both_in_ring(pair.connector()));
        EXPECT_TRUE(both_in_ring(pair.acceptor()));
    }
}

}  // namespace
}  // namespace loopfast
