// The sign: seen by all, given by the owner alone, and gone afterwards.
#include "link/possession.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <gtest/gtest.h>

#include "link/identity.h"
#include "stream/proof.h"
#include "stream_pair.h"

namespace loopfast {
namespace {

class Possession : public ::testing::TestWithParam<int> {};

int seen_sign(int of) {
    Endpoint local;
    Endpoint remote;
    SocketFacts facts{};
    EXPECT_EQ(endpoints_of(of, local, remote), 0);
    EXPECT_TRUE(look_up_socket(local, remote, facts));
    return facts.sign;
}

TEST_P(Possession, TheSignIsSeenAndTakenBack) {
    const TcpPair pair(GetParam());
    for (const int fd : {pair.connector, pair.acceptor}) {
        const int before = sign_of(fd);
        EXPECT_EQ(before, GetParam() == AF_INET ? kSignLoop | kSignAll : kSignLoop) << "as they begin";
        EXPECT_EQ(seen_sign(fd), before);
        EXPECT_FALSE(is_sign(before, seen_sign(fd)));
        ASSERT_TRUE(give_sign(fd, before));
        EXPECT_TRUE(is_sign(before, seen_sign(fd)));
        EXPECT_EQ(seen_sign(fd), sign_of(fd));
        take_sign_back(fd, before);
        EXPECT_EQ(seen_sign(fd), before);
    }
}

TEST_P(Possession, OneSwitchIsNoSign) {
    const TcpPair pair(GetParam());
    const int before = sign_of(pair.connector);
    for (const int name : {IP_MULTICAST_LOOP, IP_MULTICAST_ALL}) {
        const int off = 0;
        ASSERT_EQ(setsockopt(pair.connector, IPPROTO_IP, name, &off, sizeof off), 0);
        EXPECT_FALSE(is_sign(before, seen_sign(pair.connector)));
    }
    EXPECT_FALSE(is_sign(kNoSign, before));
    EXPECT_FALSE(is_sign(before, kNoSign));
    EXPECT_EQ(sign_of(-1), kNoSign);
    EXPECT_FALSE(give_sign(-1, before));
}

TEST_P(Possession, AfterTheHandshakeNothingIsLeft) {
    for (const int programs : {kSignLoop | kSignAll, kSignErrors, 0}) {
        TcpPair pair(GetParam());
        // The program's own setting, whatever it is, survives.
        for (const int fd : {pair.connector, pair.acceptor})
            take_sign_back(fd, programs);
        const int ends[2] = {pair.connector, pair.acceptor};
        const Stream* const streams[2] = {&opt_in(pair.connector, Role::kConnector),
                                          &opt_in(pair.acceptor, Role::kAcceptor)};
        bool shown[2] = {};
        char byte = 's';
        for (int round = 0; round < 8; ++round)
            for (int end = 0; end < 2; ++end) {
                ASSERT_EQ(door_send(ends[end], &byte, 1), 1);
                ASSERT_EQ(door_receive(ends[1 - end], &byte, 1), 1);
                for (int i = 0; i < 2; ++i)
                    shown[i] |= is_sign(programs, sign_of(ends[i]));
            }
        for (int end = 0; end < 2; ++end) {
            EXPECT_TRUE(shown[end]) << "it is given meanwhile";
            EXPECT_TRUE(both_in_ring(*streams[end]));
            EXPECT_EQ(sign_of(ends[end]), programs);
        }
        door_close(pair.connector);
        door_close(pair.acceptor);
        pair.connector = pair.acceptor = -1;
    }
}

TEST_P(Possession, WhatTheProgramSetsMeanwhileStays) {
    // That proof fails, and a later one may succeed.
    StreamPair pair(0, GetParam());
    for (const int fd : {pair.connector_fd(), pair.acceptor_fd()})
        take_sign_back(fd, kSignErrors);
    pair.settle();
    EXPECT_EQ(sign_of(pair.connector_fd()), kSignErrors);
    EXPECT_EQ(sign_of(pair.acceptor_fd()), kSignErrors);
}

TEST_P(Possession, ItIsTakenBackWhereverTheMeetingEnds) {
    // The program sets an option of the sign's, or looks at one, after so many calls: it finds what it left.
    for (int calls = 0; calls < 12; ++calls) {
        const int programs = GetParam() == AF_INET ? kSignLoop | kSignAll : kSignLoop;
        StreamPair pair(0, GetParam());
        char byte = 's';
        for (int i = 0; i < calls; ++i) {
            ASSERT_EQ(door_send(pair.fd(i % 2), &byte, 1), 1);
            ASSERT_EQ(door_receive(pair.fd(1 - i % 2), &byte, 1), 1);
        }
        for (int end = 0; end < 2; ++end) {
            keep_options_private(pair.stream(end));
            EXPECT_EQ(sign_of(pair.fd(end)), programs) << calls;
        }
        for (int i = 0; i < 40; ++i) {
            ASSERT_EQ(door_send(pair.fd(i % 2), &byte, 1), 1);
            ASSERT_EQ(door_receive(pair.fd(1 - i % 2), &byte, 1), 1);
        }
    }
}

TEST(PossessionTest, ADescriptorThatMeansSomethingElseIsLeftAlone) {
    StreamPair pair;
    const TcpPair other;
    ASSERT_TRUE(show_sign(pair.connector(), pair.connector_fd()));
    const int shown = sign_of(pair.connector_fd());
    const int kept = dup(pair.connector_fd());
    ASSERT_EQ(dup2(other.connector, pair.connector_fd()), pair.connector_fd());
    ASSERT_TRUE(give_sign(other.connector, kSignLoop | kSignAll));
    hide_sign(pair.connector());
    EXPECT_EQ(sign_of(other.connector), kSignErrors) << "the other socket's switches are its own";
    EXPECT_EQ(sign_of(kept), shown);
    close(kept);
}

INSTANTIATE_TEST_SUITE_P(Families, Possession, ::testing::Values(AF_INET, AF_INET6));

}  // namespace
}  // namespace loopfast
