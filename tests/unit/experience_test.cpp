// Handshakes that were worth nothing lately are put off, never for long, and for nobody who named a
// threshold.
#include "stream/experience.h"

#include <gtest/gtest.h>

#include "stream_pair.h"

namespace loopfast {
namespace {

struct End {
    SharedHalf shared{};
    Stream stream;
    explicit End(Role role, uint64_t threshold = kDefaultThreshold) {
        stream.shared = &shared;
        stream.role = role;
        stream.threshold = threshold;
    }
    End& carried(uint64_t messages, uint64_t bytes = 2 * kDefaultThreshold) {
        shared.counters.messages_in.store(messages / 2);
        shared.counters.messages_out.store(messages - messages / 2);
        shared.kernel_in.store(bytes);
        return *this;
    }
    bool worth_it() const { return may_be_worth_it(stream); }
};

class ExperienceTest : public ::testing::Test {
protected:
    void SetUp() override {
        for (Experience& one : experience)
            one.too_short.store(0);
    }
    static void live(Role role, int times, uint64_t messages, uint64_t bytes = 2 * kDefaultThreshold,
                     uint64_t threshold = kDefaultThreshold) {
        for (int i = 0; i < times; ++i)
            learn_from(End(role, threshold).carried(messages, bytes).stream);
    }
};

TEST_F(ExperienceTest, ManyShortOnesPutHandshakesOff) {
    live(Role::kConnector, kManyTooShort - 1, 10);
    EXPECT_TRUE(End(Role::kConnector).worth_it());
    live(Role::kConnector, 1, 10);
    EXPECT_FALSE(End(Role::kConnector).worth_it());
    EXPECT_TRUE(End(Role::kAcceptor).worth_it()) << "the other role has its own";
    EXPECT_FALSE(End(Role::kConnector).carried(kWorthwhile - 1).worth_it());
    EXPECT_TRUE(End(Role::kConnector).carried(kWorthwhile).worth_it());
    live(Role::kAcceptor, kManyTooShort, 10);
    EXPECT_FALSE(End(Role::kAcceptor).carried(kWorthwhile).worth_it()) << "the offer comes first";
    EXPECT_TRUE(End(Role::kAcceptor).carried(kWorthwhile + 1).worth_it());
}

TEST_F(ExperienceTest, LongOnesBringThemBack) {
    live(Role::kConnector, 1000, 10);
    EXPECT_FALSE(End(Role::kConnector).worth_it());
    live(Role::kConnector, 3, 2 * kWorthwhile);
    EXPECT_TRUE(End(Role::kConnector).worth_it());
    live(Role::kConnector, 100, 2 * kWorthwhile);
    live(Role::kConnector, kManyTooShort, kWorthwhile);  // neither short nor long
    EXPECT_TRUE(End(Role::kConnector).worth_it());
}

TEST_F(ExperienceTest, WhatPaysNoHandshakeTeachesNothing) {
    live(Role::kConnector, 1000, 10, kDefaultThreshold);
    EXPECT_TRUE(End(Role::kConnector).worth_it());
}

TEST_F(ExperienceTest, AThresholdThatWasSetIsObeyed) {
    live(Role::kAcceptor, 1000, 10, 5000, 100);
    EXPECT_TRUE(End(Role::kAcceptor).worth_it());
    live(Role::kAcceptor, 1000, 10);
    EXPECT_FALSE(End(Role::kAcceptor).worth_it());
    EXPECT_TRUE(End(Role::kAcceptor, 100).worth_it());
    EXPECT_TRUE(End(Role::kAcceptor, 0).worth_it());
}

}  // namespace
}  // namespace loopfast
