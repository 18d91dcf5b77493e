// Two builds whose versions of the link's protocol, or of the segment, differ, on one host: they talk as if
// neither had the library, and neither is any the worse for it.
#include <string>

#include <gtest/gtest.h>

#include "loopfast.h"
#include "victim_process.h"

namespace loopfast::hostile {
namespace {

struct Case {
    const char* name;
    const char* connector;  ///< "LD_PRELOAD=...", or empty for the library as it is
    const char* acceptor;
    bool fuse;
    long reason;  ///< at the acceptor
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

constexpr const char* kSame = "";
const char* const kLink = "LD_PRELOAD=" OTHER_LINK;
const char* const kSegment = "LD_PRELOAD=" OTHER_SEGMENT;

class Versions : public ::testing::TestWithParam<Case> {};

TEST_P(Versions, TheyTalk) {
    const Case& one = GetParam();
    Victim connector(0, one.connector);
    Victim acceptor(0, one.acceptor);
    for (int round = 0; round < 3; ++round) {
        const long port = acceptor.result("listen");
        ASSERT_EQ(connector.result("connect " + std::to_string(port)), 0);
        ASSERT_EQ(acceptor.result("accept"), 0);
        acceptor.result("unlisten");
        acceptor.result("timeout 10000");
        connector.result("timeout 10000");
        for (int i = 0; i < 20; ++i)
            for (Victim* sender : {&connector, &acceptor}) {
                Victim& receiver = sender == &connector ? acceptor : connector;
                ASSERT_EQ(sender->result("send 50"), 50);
                const Answer got = receiver.ask("recv 50");
                ASSERT_EQ(got.bytes, std::string(50, 'v'));
                ASSERT_LT(got.elapsed_us, kAtOnce);
            }
        EXPECT_EQ(connector.result("lane"), one.fuse ? 1 : 0);
        EXPECT_EQ(acceptor.result("lane"), one.fuse ? 1 : 0);
        EXPECT_EQ(acceptor.result("reason"), one.reason);
        EXPECT_EQ(connector.result("reason"),
                  one.fuse ? LOOPFAST_REASON_NONE : LOOPFAST_REASON_PEER_NOT_OPTED_IN);
        EXPECT_EQ(acceptor.result("close"), 0);
        EXPECT_EQ(connector.result("recv 10"), 0);
        EXPECT_EQ(connector.result("close"), 0);
    }
    EXPECT_TRUE(connector.exits());
    EXPECT_TRUE(acceptor.exits());
}

INSTANTIATE_TEST_SUITE_P(
    Hostile, Versions,
    ::testing::Values(
        Case{"this_version", kSame, kSame, true, LOOPFAST_REASON_NONE},
        Case{"another_link", kLink, kLink, true, LOOPFAST_REASON_NONE},
        Case{"another_segment", kSegment, kSegment, true, LOOPFAST_REASON_NONE},
        Case{"links_differ", kLink, kSame, false, LOOPFAST_REASON_PEER_NOT_OPTED_IN},
        Case{"links_differ_the_other_way", kSame, kLink, false, LOOPFAST_REASON_PEER_NOT_OPTED_IN},
        Case{"segments_differ", kSegment, kSame, false, LOOPFAST_REASON_PEER_NOT_OPTED_IN},
        Case{"segments_differ_the_other_way", kSame, kSegment, false, LOOPFAST_REASON_PEER_NOT_OPTED_IN}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace loopfast::hostile
