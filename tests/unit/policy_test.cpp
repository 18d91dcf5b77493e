// The environment's syntax, all of it and its mistakes. The policy is read once per process, so each case is
// a child of its own.
#include "policy/policy.h"

#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include "policy/reason.h"

extern char* program_invocation_short_name;

namespace loopfast {
namespace {

using Environment = std::map<std::string, std::string>;

struct Found {
    Decision web;    // port 80
    Decision redis;  // port 6379
    int64_t spin;
    bool needs_port;
    bool any;
    Decision local;   // port 80 of 127.0.0.1
    Decision local6;  // port 80 of ::1
    bool strict;
};

constexpr unsigned char kLocal[4] = {127, 0, 0, 1};
constexpr unsigned char kLocal6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

Found read_policy(const Environment& environment, const char* program = "server", int cpus = 2) {
    Found found{};
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        for (const char* name : {"LOOPFAST", "LOOPFAST_SPIN", "LOOPFAST_THRESHOLD", "LOOPFAST_RULES",
                                 "LOOPFAST_LOG", "LOOPFAST_ASSUME"})
            unsetenv(name);
        for (const auto& [name, value] : environment)
            setenv(name.c_str(), value.c_str(), 1);
        if (cpus == 1) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(sched_getcpu(), &one);
            sched_setaffinity(0, sizeof one, &one);
        }
        program_invocation_short_name = strdup(program);
        load_policy();
        // What counts is copied: the environment may change afterwards.
        for (const auto& [name, value] : environment)
            setenv(name.c_str(), std::string(value.size(), '#').c_str(), 1);
        found = {decide(80),
                 decide(6379),
                 spin_budget(),
                 decide_needs_port(),
                 any_opted_in(),
                 decide(80, AF_INET, kLocal),
                 decide(80, AF_INET6, kLocal6),
                 assume_strict()};
        _exit(write(ends[1], &found, sizeof found) == sizeof found ? 0 : 1);
    }
    close(ends[1]);
    EXPECT_EQ(read(ends[0], &found, sizeof found), static_cast<ssize_t>(sizeof found));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    return found;
}

bool several_cpus() { return sysconf(_SC_NPROCESSORS_ONLN) > 1; }

TEST(Policy, NothingSaidIsOff) {
    const Found found = read_policy({});
    EXPECT_FALSE(found.web.on);
    EXPECT_FALSE(found.any);
    EXPECT_FALSE(found.needs_port);
    EXPECT_EQ(found.web.threshold, kDefaultThreshold);
    EXPECT_EQ(found.spin, several_cpus() ? kDefaultSpin : kSpinOff);
}

TEST(Policy, OnAndOff) {
    for (const char* on : {"on", "1"})
        EXPECT_TRUE(read_policy({{"LOOPFAST", on}}).web.on) << on;
    for (const char* off : {"off", "0", "", "ON", "yes", "on ", "onn", "o"})
        EXPECT_FALSE(read_policy({{"LOOPFAST", off}}).any) << off;
}

TEST(Policy, Threshold) {
    EXPECT_EQ(read_policy({{"LOOPFAST_THRESHOLD", "0"}}).web.threshold, 0U);
    EXPECT_EQ(read_policy({{"LOOPFAST_THRESHOLD", "123456"}}).web.threshold, 123456U);
    EXPECT_EQ(read_policy({{"LOOPFAST_THRESHOLD", "999999999999999999"}}).web.threshold, 999999999999999999U);
    for (const char* wrong : {"", "-1", "1k", " 1", "1 ", "0x10", "1e3", "9999999999999999999", "+1"})
        EXPECT_EQ(read_policy({{"LOOPFAST_THRESHOLD", wrong}}).web.threshold, kDefaultThreshold) << wrong;
}

TEST(Policy, Spin) {
    EXPECT_EQ(parse_spin("off", 3), kSpinOff);
    EXPECT_EQ(parse_spin("auto", 4), kDefaultSpin);
    EXPECT_EQ(parse_spin("0", 1), 0);
    EXPECT_EQ(parse_spin("20", 2), 20'000);
    EXPECT_EQ(parse_spin("20000", 2), 20'000) << "only the length given counts";
    EXPECT_EQ(parse_spin("1000000", 7), 1'000'000'000);
    for (const char* wrong : {"", "1000001", "of", "offf", "-1", "5us", "Auto", "99999999999999999999"})
        EXPECT_EQ(parse_spin(wrong, static_cast<int>(strlen(wrong))), -1) << wrong;
    if (!several_cpus())
        GTEST_SKIP() << "with one processor spinning is off whatever is said";
    EXPECT_EQ(read_policy({{"LOOPFAST_SPIN", "off"}}).spin, kSpinOff);
    EXPECT_EQ(read_policy({{"LOOPFAST_SPIN", "7"}}).spin, 7000);
    EXPECT_EQ(read_policy({{"LOOPFAST_SPIN", "fast"}}).spin, kDefaultSpin);
    // Bound to one of several processors: the peer may run on another.
    EXPECT_EQ(read_policy({{"LOOPFAST_SPIN", "7"}}, "server", 1).spin, 7000);
}

TEST(Policy, RulesAreChosenByProgramAndPort) {
    Found found = read_policy({{"LOOPFAST_RULES", "server:80:on:-:100"}});
    EXPECT_TRUE(found.web.on);
    EXPECT_EQ(found.web.threshold, 100U);
    EXPECT_FALSE(found.redis.on);
    EXPECT_EQ(found.redis.threshold, kDefaultThreshold);
    EXPECT_TRUE(found.needs_port);
    EXPECT_TRUE(found.any);

    found = read_policy({{"LOOPFAST_RULES", "server:80:on:-:100"}}, "client");
    EXPECT_FALSE(found.web.on);
    EXPECT_FALSE(found.any);
    EXPECT_FALSE(found.needs_port) << "a rule for another program costs nothing";

    found = read_policy({{"LOOPFAST", "on"}, {"LOOPFAST_RULES", "*:6379:off:-:-"}});
    EXPECT_TRUE(found.web.on);
    EXPECT_FALSE(found.redis.on);

    found = read_policy({{"LOOPFAST", "on"}, {"LOOPFAST_RULES", "*:*:off:-:-"}});
    EXPECT_FALSE(found.web.on);
    EXPECT_FALSE(found.needs_port);
}

TEST(Policy, TheFirstRuleThatSaysSomethingDecidesEachField) {
    const Found found =
        read_policy({{"LOOPFAST_THRESHOLD", "5"},
                     {"LOOPFAST_RULES", "*:80:-:-:7;server:80:off:-:8;*:*:on:-:9;*:*:off:-:10"}});
    EXPECT_FALSE(found.web.on);
    EXPECT_EQ(found.web.threshold, 7U);
    EXPECT_TRUE(found.redis.on);
    EXPECT_EQ(found.redis.threshold, 9U);
}

TEST(Policy, RulesByAddress) {
    const auto forbids = [](const char* address) {
        const Found found = read_policy({{"LOOPFAST_RULES", std::string("*:*:off:-:-:*:") + address}});
        EXPECT_TRUE(found.needs_port);
        EXPECT_FALSE(found.web.forbidden) << "no address is known there";
        return (found.local.forbidden ? 4 : 0) + (found.local6.forbidden ? 6 : 0);
    };
    EXPECT_EQ(forbids("4/7f000001/32"), 4);
    EXPECT_EQ(forbids("4/7f000000/8"), 4);
    EXPECT_EQ(forbids("4/7e000000/7"), 4);
    EXPECT_EQ(forbids("4/7f000002/32"), 0);
    EXPECT_EQ(forbids("4/00000000/0"), 4);
    EXPECT_EQ(forbids("6/00000000000000000000000000000001/128"), 6);
    EXPECT_EQ(forbids("6/00000000000000000000000000000002/128"), 0);
    EXPECT_EQ(forbids("6/00000000000000000000000000000002/126"), 6);
    // Malformed ones are no rules at all.
    for (const char* address : {"4/7f000001/33", "4/7f0001/8", "4/7f00000g/8", "4", "", "5/7f000001/8",
                                "4/7f000001/", "6/7f000001/8", "4/7f000001"})
        EXPECT_FALSE(
            read_policy({{"LOOPFAST_RULES", std::string("*:*:off:-:-:*:") + address}}).local.forbidden)
            << address;
}

TEST(Policy, RulesByUser) {
    const std::string own = std::to_string(geteuid());
    EXPECT_TRUE(read_policy({{"LOOPFAST_RULES", "*:*:off:-:-:" + own}}).web.forbidden);
    EXPECT_TRUE(read_policy({{"LOOPFAST_RULES", "*:*:off:-:-:*"}}).web.forbidden);
    EXPECT_FALSE(read_policy({{"LOOPFAST_RULES", "*:*:off:-:-:" + own + "9"}}).web.forbidden);
    EXPECT_FALSE(read_policy({{"LOOPFAST_RULES", "*:*:off:-:-:root"}}).web.forbidden);
    // The first rule that says something about the lane decides.
    EXPECT_FALSE(read_policy({{"LOOPFAST_RULES", "*:*:on:-:-:" + own + ";*:*:off:-:-"}}).web.forbidden);
}

TEST(Policy, Assume) {
    EXPECT_FALSE(read_policy({}).strict);
    EXPECT_TRUE(read_policy({{"LOOPFAST_ASSUME", "strict"}}).strict);
    EXPECT_FALSE(read_policy({{"LOOPFAST_ASSUME", "fuse"}}).strict);
    EXPECT_FALSE(read_policy({{"LOOPFAST_ASSUME", "Strict"}}).strict);
}

TEST(Policy, SpinOfRules) {
    if (!several_cpus())
        GTEST_SKIP() << "with one processor spinning is off whatever is said";
    EXPECT_EQ(read_policy({{"LOOPFAST_RULES", "server:*:-:30:-;*:*:-:40:-"}}).spin, 30'000);
    EXPECT_EQ(read_policy({{"LOOPFAST_RULES", "server:80:-:30:-;*:*:-:40:-"}}).spin, 40'000)
        << "spinning is a matter of the process, not of a port";
    EXPECT_EQ(read_policy({{"LOOPFAST_SPIN", "50"}, {"LOOPFAST_RULES", "*:*:-:40:-"}}).spin, 50'000)
        << "what is said for this start comes before the rules";
    EXPECT_EQ(read_policy({{"LOOPFAST_SPIN", "nonsense"}, {"LOOPFAST_RULES", "*:*:-:40:-"}}).spin, 40'000);
    EXPECT_EQ(read_policy({{"LOOPFAST_RULES", "other:*:-:30:-"}}).spin, kDefaultSpin);
}

TEST(Policy, MalformedRulesAreDroppedAndTheOthersKept) {
    for (const char* wrong :
         {"", ":", "::::", "server", "server:80", "server:80:on", "server:80:on:-",
          "server:80:on:-:1:", ":80:on:-:1", "server:65536:on:-:-", "server:-1:on:-:-", "server:8o:on:-:-",
          "server:99999999999999999999:on:-:-", "server::on:-:-", "server:80:yes:-:-", "server:80::-:-",
          "serve:80:on:-:-", "servers:80:on:-:-"}) {
        SCOPED_TRACE(wrong);
        EXPECT_FALSE(read_policy({{"LOOPFAST_RULES", wrong}}).any);
        const std::string between = std::string("*:81:off:-:-;") + wrong + ";*:80:on:-:3";
        const Found found = read_policy({{"LOOPFAST_RULES", between}});
        EXPECT_TRUE(found.web.on);
        EXPECT_FALSE(found.redis.on);
    }
    // A bad threshold or spin leaves the field unsaid.
    const Found found = read_policy({{"LOOPFAST_RULES", "*:80:on:x:y"}});
    EXPECT_TRUE(found.web.on);
    EXPECT_EQ(found.web.threshold, kDefaultThreshold);
}

TEST(Policy, MoreRulesThanThereIsRoomFor) {
    std::string rules;
    for (int i = 0; i < 1000; ++i)
        rules += "*:" + std::to_string(10'000 + i) + ":off:-:-;";
    const Found found = read_policy({{"LOOPFAST_RULES", rules + "*:80:on:-:-"}});
    EXPECT_FALSE(found.web.on);
    EXPECT_TRUE(found.needs_port);
    EXPECT_TRUE(read_policy({{"LOOPFAST_RULES", "*:80:on:-:-;" + rules}}).web.on);
}

TEST(Policy, VeryLongValues) {
    const std::string text(100'000, 'x');
    EXPECT_FALSE(read_policy({{"LOOPFAST_RULES", text}}).any);
    EXPECT_FALSE(read_policy({{"LOOPFAST_RULES", std::string(100'000, ':')}}).any);
    EXPECT_FALSE(read_policy({{"LOOPFAST_RULES", std::string(100'000, ';')}}).any);
    EXPECT_EQ(read_policy({{"LOOPFAST_THRESHOLD", std::string(100'000, '9')}}).web.threshold,
              kDefaultThreshold);
}

TEST(ReasonTest, EachHasAName) {
    EXPECT_STREQ(reason_name(LOOPFAST_REASON_NONE), "none");
    EXPECT_STREQ(reason_name(LOOPFAST_REASON_BELOW_THRESHOLD), "below-threshold");
    EXPECT_STREQ(reason_name(LOOPFAST_REASON_ENDING), "ending");
    EXPECT_STREQ(reason_name(LOOPFAST_REASON_ENDING + 1), "unknown");
    EXPECT_STREQ(reason_name(-1), "unknown");
}

}  // namespace
}  // namespace loopfast
