// One end of a connection against the other: fusing, refusing, ends and errors, each compared with what
// kernel TCP shows for the same thing.
#include "stream/stream.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "stream/counters.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

Reason reason_of(const Stream& stream) {
    return static_cast<Reason>(stream.shared->reason.load(std::memory_order_relaxed));
}

int hidden_descriptors() {
    int count = 0;
    for (int fd = next_hidden(0); fd >= 0; fd = next_hidden(fd + 1))
        ++count;
    return count;
}

class StreamTest : public ::testing::TestWithParam<int> {};

TEST_P(StreamTest, FusesAtOnce) {
    StreamPair pair(0, GetParam());
    EXPECT_TRUE(pair.settle());
    EXPECT_EQ(reason_of(pair.connector()), Reason::kNone);
    EXPECT_EQ(reason_of(pair.acceptor()), Reason::kNone);
    EXPECT_EQ(pair.connector().peer_pid, getpid());
    // The bytes really are in the ring: the kernel has not seen them.
    ASSERT_EQ(door_send(pair.connector_fd(), "hello", 5), 5);
    int kernel = -1;
    ASSERT_EQ(ioctl(pair.acceptor_fd(), FIONREAD, &kernel), 0);
    EXPECT_EQ(kernel, 0);
    EXPECT_EQ(bytes_waiting(pair.acceptor(), pair.acceptor_fd()), 5U);
    char text[8] = {};
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 5);
    EXPECT_STREQ(text, "hello");
}

INSTANTIATE_TEST_SUITE_P(Families, StreamTest, ::testing::Values(AF_INET, AF_INET6));

TEST(Fuse, NothingIsLeftBehind) {
    {
        StreamPair warm;
        ASSERT_TRUE(warm.settle());
    }
    const int before = hidden_descriptors();
    const int lowest = dup(0);
    close(lowest);
    for (int i = 0; i < 50; ++i) {
        StreamPair pair;
        ASSERT_TRUE(pair.settle());
    }
    EXPECT_EQ(hidden_descriptors(), before);
    EXPECT_EQ(dup(0), lowest);
    close(lowest);
}

TEST(Fuse, OneEndAloneStaysOnTheKernel) {
    TcpPair sockets;
    Stream& connector = opt_in(sockets.connector, Role::kConnector);
    EXPECT_EQ(connector.state(), State::kOffered);
    char byte = 'x';
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(door_send(sockets.connector, &byte, 1), 1);
        ASSERT_EQ(::recv(sockets.acceptor, &byte, 1, 0), 1);
    }
    EXPECT_FALSE(connector.fused());
    EXPECT_EQ(reason_of(connector), Reason::kPeerNotOptedIn);
    door_close(sockets.connector);
    sockets.connector = -1;

    TcpPair others;
    Stream& acceptor = opt_in(others.acceptor, Role::kAcceptor);
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(::send(others.connector, &byte, 1, 0), 1);
        ASSERT_EQ(door_receive(others.acceptor, &byte, 1), 1);
    }
    EXPECT_FALSE(acceptor.fused());
    EXPECT_EQ(reason_of(acceptor), Reason::kPeerNotOptedIn);
    door_close(others.acceptor);
    others.acceptor = -1;
}

TEST(Fuse, BytesSentBehindOurBackKeepItOnTheKernelInOrder) {
    for (const int end : {0, 1}) {
        SCOPED_TRACE(end);
        StreamPair pair(64);
        ASSERT_EQ(::send(pair.fd(end), "raw", 3, 0), 3);
        std::string got;
        for (int i = 0; i < 200; ++i) {
            ASSERT_EQ(door_send(pair.fd(end), "counted.", 8), 8);
            char text[16];
            const long size = door_receive(pair.fd(1 - end), text, sizeof text);
            ASSERT_GT(size, 0);
            got.append(text, static_cast<size_t>(size));
        }
        while (got.size() < 3 + 200 * 8) {
            char text[16];
            const long size = door_receive(pair.fd(1 - end), text, sizeof text);
            ASSERT_GT(size, 0);
            got.append(text, static_cast<size_t>(size));
        }
        std::string expected = "raw";
        for (int i = 0; i < 200; ++i)
            expected += "counted.";
        EXPECT_EQ(got, expected);
        EXPECT_FALSE(pair.stream(end).out_in_ring());
    }
}

TEST(Fuse, WhatOnlyTheKernelCanServeIsRefused) {
    const int on = 1;
    {
        TcpPair sockets;
        setsockopt(sockets.connector, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on);
        EXPECT_EQ(reason_of(opt_in(sockets.connector, Role::kConnector)), Reason::kOption);
        door_close(sockets.connector);
        sockets.connector = -1;
    }
    {
        TcpPair sockets;
        setsockopt(sockets.connector, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
        EXPECT_TRUE(needs_kernel(sockets.connector));
        EXPECT_FALSE(needs_kernel(sockets.acceptor));
    }
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    EXPECT_FALSE(opt_in(ends[0], Role::kConnector).fused());
    door_close(ends[0]);
    close(ends[1]);
}

TEST(Fuse, AConnectionToItselfIsRefused) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
    ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
    Stream& stream = opt_in(fd, Role::kConnector);
    EXPECT_EQ(reason_of(stream), Reason::kNotLocal);
    char byte = 'x';
    EXPECT_EQ(door_send(fd, &byte, 1), 1);
    EXPECT_EQ(door_receive(fd, &byte, 1), 1);
    door_close(fd);
}

TEST(Fuse, AnOfferIsWithdrawnBeforeAFork) {
    TcpPair sockets;
    Stream& connector = opt_in(sockets.connector, Role::kConnector);
    ASSERT_EQ(connector.state(), State::kOffered);
    const int before = hidden_descriptors();
    before_fork();
    EXPECT_EQ(connector.state(), State::kCandidate);
    EXPECT_EQ(hidden_descriptors(), before - 1);
    EXPECT_EQ(count_holders(*connector.shared), 2) << "the child's place is kept";
    connector.shared->more_holders.store(0);
    door_close(sockets.connector);
    sockets.connector = -1;
}

TEST(End, WriteThenCloseLosesNothing) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    const std::vector<char> bytes(100'000, 'w');
    ASSERT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), 100'000);
    pair.close_connector();
    std::vector<char> got(200'000);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), got.data(), got.size(), MSG_WAITALL), 100'000);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), got.data(), got.size()), 0);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), got.data(), got.size()), 0);
}

TEST(End, CloseWithUnreadBytesIsAReset) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "unread", 6), 6);
    pair.close_acceptor();
    char byte;
    EXPECT_EQ(door_receive(pair.connector_fd(), &byte, 1), -ECONNRESET);
    EXPECT_EQ(door_receive(pair.connector_fd(), &byte, 1), 0);
    EXPECT_EQ(door_send(pair.connector_fd(), "x", 1), -EPIPE);
}

TEST(End, HalfCloseLeavesTheOtherDirection) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    ASSERT_EQ(door_send(pair.connector_fd(), "last", 4), 4);
    ASSERT_EQ(door_shutdown(pair.connector_fd(), SHUT_WR), 0);
    EXPECT_EQ(door_send(pair.connector_fd(), "x", 1), -EPIPE);
    char text[16];
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 4);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), 0);
    for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(door_send(pair.acceptor_fd(), "answer", 6), 6);
        ASSERT_EQ(door_receive(pair.connector_fd(), text, sizeof text), 6);
    }
    pair.close_acceptor();
    EXPECT_EQ(door_receive(pair.connector_fd(), text, sizeof text), 0);
}

TEST(Limits, AFullRingIsBackPressure) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    std::vector<unsigned char> bytes(1 << 20);
    uint64_t sent = 0;
    for (;;) {
        for (size_t i = 0; i < bytes.size(); ++i)
            bytes[i] = static_cast<unsigned char>((sent + i) % 251);
        const long result = door_send(pair.connector_fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (result < 0) {
            EXPECT_EQ(result, -EAGAIN);
            break;
        }
        sent += static_cast<uint64_t>(result);
        ASSERT_LE(sent, kDefaultCapacity);
    }
    EXPECT_EQ(sent, send_limit(pair.connector()));
    EXPECT_FALSE(has_room(pair.connector()));
    EXPECT_EQ(readiness(pair.connector(), pair.connector_fd(), Freshness::kRecent) & POLLOUT, 0U);
    uint64_t got = 0;
    while (got < sent) {
        const long result = door_receive(pair.acceptor_fd(), bytes.data(), bytes.size());
        ASSERT_GT(result, 0);
        for (long i = 0; i < result; ++i, ++got)
            ASSERT_EQ(bytes[static_cast<size_t>(i)], got % 251);
    }
    EXPECT_TRUE(has_room(pair.connector()));
    EXPECT_NE(readiness(pair.connector(), pair.connector_fd(), Freshness::kRecent) & POLLOUT, 0U);
}

TEST(Limits, TimeoutsEndABlockedCall) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    pair.acceptor().shared->receive_timeout.store(50'000'000);
    pair.connector().shared->send_timeout.store(50'000'000);
    char byte;
    int64_t start = now_ns();
    EXPECT_EQ(door_receive(pair.acceptor_fd(), &byte, 1), -EAGAIN);
    EXPECT_GE(now_ns() - start, 50'000'000);
    const std::vector<char> bytes(8 << 20);
    start = now_ns();
    EXPECT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()),
              static_cast<long>(send_limit(pair.connector())));
    EXPECT_GE(now_ns() - start, 50'000'000);
    EXPECT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), -EAGAIN);
}

TEST(Broken, CursorsThatCannotBeEndTheConnectionAsAReset) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    Segment& segment = *pair.acceptor().segment.segment;
    segment.direction[0].producer.head.store(~uint64_t{0} / 2, std::memory_order_relaxed);
    char text[16];
    EXPECT_EQ(bytes_waiting(pair.acceptor(), pair.acceptor_fd()), 0U);
    EXPECT_EQ(door_receive(pair.acceptor_fd(), text, sizeof text), -ECONNRESET);
    EXPECT_EQ(door_send(pair.acceptor_fd(), "x", 1), -EPIPE);
    // The other end hears of it from the kernel.
    pair.connector().shared->receive_timeout.store(5'000'000'000);
    EXPECT_EQ(door_receive(pair.connector_fd(), text, sizeof text), 0);
}

TEST(Broken, ATailThatCannotBe) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    Segment& segment = *pair.connector().segment.segment;
    segment.direction[0].consumer.tail.store(1'000'000, std::memory_order_relaxed);
    const std::vector<char> bytes(10'000);
    EXPECT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), -ECONNRESET);
    EXPECT_EQ(door_send(pair.connector_fd(), bytes.data(), bytes.size()), -EPIPE);
}

TEST(Leave, BytesComeInOrderAfterOneEndLeaves) {
    StreamPair pair;
    ASSERT_TRUE(pair.settle());
    // Unread bytes in both directions at the moment of leaving.
    ASSERT_EQ(door_send(pair.connector_fd(), "to-acceptor.", 12), 12);
    ASSERT_EQ(door_send(pair.acceptor_fd(), "to-connector.", 13), 13);
    ASSERT_TRUE(leave(pair.acceptor(), pair.acceptor_fd(), Reason::kPolicy));
    EXPECT_FALSE(pair.acceptor().fused());
    ASSERT_EQ(door_send(pair.acceptor_fd(), "more.", 5), 5);
    std::string got;
    pair.connector().link_down.store(true);  // as the wait that saw the hang-up would
    pair.connector().shared->receive_timeout.store(5'000'000'000);
    while (got.size() < 18) {
        char text[32];
        const long size = door_receive(pair.connector_fd(), text, sizeof text);
        ASSERT_GT(size, 0) << got;
        got.append(text, static_cast<size_t>(size));
    }
    EXPECT_EQ(got, "to-connector.more.");
    ASSERT_EQ(door_send(pair.connector_fd(), "later.", 6), 6);
    const timeval timeout{5, 0};
    setsockopt(pair.acceptor_fd(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    got.clear();
    while (got.size() < 18) {
        char text[32];
        const long size = door_receive(pair.acceptor_fd(), text, sizeof text);
        ASSERT_GT(size, 0) << got;
        got.append(text, static_cast<size_t>(size));
    }
    EXPECT_EQ(got, "to-acceptor.later.");
}

TEST(Counters, AgreeWithTheKernelsOnBothEnds) {
    StreamPair pair(1 << 20);
    char byte = 'x';
    for (int i = 0; i < 10; ++i)
        ASSERT_EQ(door_send(pair.connector_fd(), &byte, 1), 1);
    for (int i = 0; i < 4; ++i)
        ASSERT_EQ(door_receive(pair.acceptor_fd(), &byte, 1), 1);
    EXPECT_TRUE(sent_count_agrees(pair.connector(), pair.connector_fd()));
    EXPECT_TRUE(received_count_agrees(pair.acceptor(), pair.acceptor_fd()));
    EXPECT_TRUE(sent_count_agrees(pair.acceptor(), pair.acceptor_fd()));
    EXPECT_TRUE(received_count_agrees(pair.connector(), pair.connector_fd()));
    ASSERT_EQ(::recv(pair.acceptor_fd(), &byte, 1, 0), 1);
    EXPECT_FALSE(received_count_agrees(pair.acceptor(), pair.acceptor_fd()));
    ASSERT_EQ(::send(pair.connector_fd(), &byte, 1, 0), 1);
    EXPECT_FALSE(sent_count_agrees(pair.connector(), pair.connector_fd()));
}

TEST(Counters, CorkedBytesArePushedOut) {
    StreamPair pair(1 << 20);
    const int on = 1;
    ASSERT_EQ(setsockopt(pair.connector_fd(), IPPROTO_TCP, TCP_CORK, &on, sizeof on), 0);
    ASSERT_EQ(door_send(pair.connector_fd(), "corked", 6), 6);
    EXPECT_TRUE(sent_count_agrees(pair.connector(), pair.connector_fd()));
    pollfd one{pair.acceptor_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&one, 1, 100), 1) << "sooner than the 200 ms after which the kernel gives up waiting";
    int value = 0;
    socklen_t size = sizeof value;
    getsockopt(pair.connector_fd(), IPPROTO_TCP, TCP_CORK, &value, &size);
    EXPECT_EQ(value, 1) << "and the option is as the program left it";
}

}  // namespace
}  // namespace loopfast
