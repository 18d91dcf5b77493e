// What is known of a packet without having it, and what the extension matches of xtables make of that. The
// judgement of whole rule sets is tested against the kernel's, in tests/filters.
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_state.h>
#include <linux/netfilter/xt_tcpudp.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

#include "filters/findings.h"
#include "filters/netlink.h"
#include "filters/packet.h"

namespace loopfast {
namespace {

constexpr Place kInput{Hook::kInput, false, true};

template <typename Info>
Match judge(const char* name, unsigned revision, const Info& info, Place place = kInput) {
    return judge_extension(name, revision, reinterpret_cast<const unsigned char*>(&info), sizeof info, place);
}

TEST(Bits, ComparesWhatIsKnown) {
    Bits bits;
    const unsigned char value[4] = {1, 2, 3, 4};
    EXPECT_EQ(bits.equal(0, value, 4), Match::kMaybe);
    bits.set(0, value, 4);
    EXPECT_EQ(bits.equal(0, value, 4), Match::kAlways);
    EXPECT_EQ(bits.equal(0, value, 3), Match::kAlways);
    const unsigned char other[4] = {1, 2, 3, 5};
    EXPECT_EQ(bits.equal(0, other, 4), Match::kNever);
    bits.forget(3, 1);
    EXPECT_EQ(bits.equal(0, other, 4), Match::kMaybe);
    // One byte that is known to differ is enough.
    const unsigned char first[4] = {9, 2, 3, 5};
    EXPECT_EQ(bits.equal(0, first, 4), Match::kNever);
    // Nothing is known beyond the end.
    EXPECT_EQ(bits.equal(Bits::kMost - 2, value, 4), Match::kMaybe);
    EXPECT_FALSE(bits.known(Bits::kMost - 2, 4));
    EXPECT_EQ(bits.equal(Bits::kMost, value, 4), Match::kMaybe);
}

TEST(Bits, AMaskMakesItsZerosKnown) {
    Bits bits;
    bits.set_byte(0, kTcpFlags, kKnownTcpFlags);
    const unsigned char syn_and_ack = 0x12;
    const unsigned char nothing = 0;
    bits.combine(0, 4, &syn_and_ack, &nothing, 1);
    const unsigned char ack = 0x10;
    const unsigned char syn = 0x02;
    EXPECT_EQ(bits.equal(4, &ack, 1), Match::kAlways);
    EXPECT_EQ(bits.equal(4, &syn, 1), Match::kNever);
    const unsigned char push_and_ack = 0x18;
    bits.combine(0, 8, &push_and_ack, &nothing, 1);
    EXPECT_EQ(bits.equal(8, &ack, 1), Match::kMaybe);
    EXPECT_EQ(bits.equal(8, &nothing, 1), Match::kNever);
}

TEST(Extension, Conntrack) {
    xt_conntrack_mtinfo3 info{};
    info.match_flags = XT_CONNTRACK_STATE;
    info.state_mask = XT_CONNTRACK_STATE_BIT(2);  // new
    EXPECT_EQ(judge("conntrack", 3, info), Match::kNever);
    info.invert_flags = XT_CONNTRACK_STATE;
    EXPECT_EQ(judge("conntrack", 3, info), Match::kAlways);
    info.state_mask = XT_CONNTRACK_STATE_BIT(0) | XT_CONNTRACK_STATE_BIT(1);
    EXPECT_EQ(judge("conntrack", 3, info), Match::kNever);
    info.invert_flags = 0;
    EXPECT_EQ(judge("conntrack", 3, info), Match::kAlways);
    info.match_flags |= XT_CONNTRACK_PROTO;
    EXPECT_EQ(judge("conntrack", 3, info), Match::kMaybe);
    info.match_flags = XT_CONNTRACK_PROTO;
    EXPECT_EQ(judge("conntrack", 3, info), Match::kMaybe);
    // In the raw table nobody has tracked it yet; of an unknown revision nothing is known.
    info.match_flags = XT_CONNTRACK_STATE;
    info.state_mask = XT_CONNTRACK_STATE_BIT(2);
    EXPECT_EQ(judge("conntrack", 3, info, Place{Hook::kPrerouting, false, false}), Match::kMaybe);
    EXPECT_EQ(judge("conntrack", 9, info), Match::kMaybe);
    EXPECT_EQ(judge_extension("conntrack", 3, nullptr, 0, kInput), Match::kMaybe);
}

TEST(Extension, StateTcpCommentAndOthers) {
    EXPECT_EQ(judge("state", 0, xt_state_info{XT_STATE_BIT(2)}), Match::kNever);
    EXPECT_EQ(judge("state", 0, xt_state_info{XT_STATE_BIT(0)}), Match::kAlways);
    xt_tcp tcp{};
    tcp.spts[1] = tcp.dpts[1] = 0xffff;
    EXPECT_EQ(judge("tcp", 0, tcp), Match::kAlways);
    tcp.flg_mask = 0x17;  // --syn
    tcp.flg_cmp = 0x02;
    EXPECT_EQ(judge("tcp", 0, tcp), Match::kNever);
    tcp.invflags = XT_TCP_INV_FLAGS;
    EXPECT_EQ(judge("tcp", 0, tcp), Match::kAlways);
    tcp.dpts[0] = tcp.dpts[1] = 80;
    EXPECT_EQ(judge("tcp", 0, tcp), Match::kMaybe);
    EXPECT_EQ(judge("comment", 0, tcp), Match::kAlways);
    EXPECT_EQ(judge("limit", 0, tcp), Match::kMaybe);
}

TEST(Findings, KeepsTheFirstAndCountsTheRest) {
    Findings findings;
    for (int i = 0; i < 20; ++i)
        findings.add(Kind::kCapture, "number %d\x1b[31m", i);
    EXPECT_EQ(findings.count, Findings::kMost);
    EXPECT_EQ(findings.more, 4U);
    EXPECT_STREQ(findings.list[0].text, "number 0?[31m") << "what others wrote goes to a terminal";
    Findings all;
    all.append(findings);
    EXPECT_TRUE(all.same_as(findings));
    all.append(findings);
    EXPECT_EQ(all.more, 4U + 4U + Findings::kMost);
    EXPECT_FALSE(all.same_as(findings));
    Findings long_one;
    long_one.add(Kind::kNftables, "%s", std::string(1000, 'x').c_str());
    EXPECT_EQ(strlen(long_one.list[0].text), kObjectionText - 1U);
}

TEST(Attributes, StopsAtNonsense) {
    // An attribute of 8 bytes, and one that claims to be longer than there is room.
    const uint16_t bytes[] = {8, 5, 0x1234, 0, 100, 6, 0, 0};
    const Attributes list(reinterpret_cast<const unsigned char*>(bytes), sizeof bytes);
    EXPECT_EQ(list.find(5).as<uint32_t>(), 0x1234U);
    EXPECT_EQ(list.find(5).as<uint64_t>(), 0U) << "too short for that";
    EXPECT_EQ(list.find(6).size, 0U);
    EXPECT_STREQ(list.find(7).text(), "");
    const uint16_t tiny[] = {2, 5};
    EXPECT_EQ(Attributes(reinterpret_cast<const unsigned char*>(tiny), sizeof tiny).find(5).data, nullptr);
}

/// The name of the device with this number, "" for none.
std::string name_of(Netlink& netlink, int index) {
    ifinfomsg body{};
    body.ifi_index = index;
    Request request(RTM_GETLINK, 0, &body, sizeof body);
    std::string name;
    netlink.ask(request, [&](const Answer& answer) {
        name = answer.attributes<ifinfomsg>().find(IFLA_IFNAME).text();
    });
    return name;
}

long mappings() {
    std::ifstream maps("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
}

TEST(Netlink, OneAfterTheOtherNeedsNoMapping) {
    for (int i = 0; i < 3; ++i) {
        const long before = mappings();
        Netlink netlink(NETLINK_ROUTE);
        EXPECT_EQ(mappings(), before);
        EXPECT_EQ(name_of(netlink, 1), "lo");
    }
}

// What a thread or a handler asks while another is in the middle of its answers must not change them.
TEST(Netlink, OneWithinTheAnswersOfAnother) {
    Netlink outer(NETLINK_ROUTE);
    ifinfomsg body{};
    body.ifi_index = 1;
    Request request(RTM_GETLINK, 0, &body, sizeof body);
    int answers = 0;
    const long result = outer.ask(request, [&](const Answer& answer) {
        ++answers;
        const std::string before(reinterpret_cast<const char*>(answer.body), answer.size);
        Netlink inner(NETLINK_ROUTE);
        EXPECT_EQ(name_of(inner, 1), "lo");
        EXPECT_EQ(name_of(inner, 0x7ffffff), "");
        EXPECT_EQ(std::string(reinterpret_cast<const char*>(answer.body), answer.size), before);
    });
    EXPECT_EQ(result, 0);
    EXPECT_EQ(answers, 1);
}

}  // namespace
}  // namespace loopfast
