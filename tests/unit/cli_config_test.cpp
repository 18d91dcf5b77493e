// The configuration file: what is accepted becomes the rules the library reads, and every mistake is named
// with file, line, column, what was found and what was expected.
#include "cli/config.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace loopfast::cli {
namespace {

std::string rules_of(const char* text, bool leave_out_spin = false, bool leave_out_threshold = false) {
    return compile_rules(parse_config(text, "test.toml"), leave_out_spin, leave_out_threshold);
}

/// The message that a text is refused with.
std::string refusal(const std::string& text) {
    try {
        parse_config(text, "test.toml");
    } catch (const Failure& failure) {
        EXPECT_EQ(failure.status(), kUsage);
        return failure.what();
    }
    return "accepted";
}

TEST(ConfigFile, EmptyMeansNothing) {
    EXPECT_EQ(rules_of(""), "");
    EXPECT_EQ(rules_of("# only a comment\n"), "");
}

TEST(ConfigFile, EveryFieldOfARuleIsCompiled) {
    EXPECT_EQ(rules_of("[[rule]]\nprogram = \"redis-server\"\nport = 6379\nlane = \"on\"\nthreshold = 0\n"),
              "redis-server:6379:on:-:0");
    EXPECT_EQ(rules_of("[[rule]]\nprogram = \"nginx\"\nspin = \"off\"\n"), "nginx:*:-:off:-");
    EXPECT_EQ(rules_of("[[rule]]\nprogram = \"*\"\nport = \"*\"\nlane = \"off\"\n"), "*:*:off:-:-");
}

TEST(ConfigFile, UsersAndAddresses) {
    EXPECT_EQ(rules_of("[[rule]]\nuser = \"root\"\nlane = \"off\"\n"), "*:*:off:-:-:0:*");
    EXPECT_EQ(rules_of("[[rule]]\nuser = 1000\naddress = \"10.1.2.0/24\"\nlane = \"off\"\n"),
              "*:*:off:-:-:1000:4/0a010200/24");
    EXPECT_EQ(rules_of("[[rule]]\naddress = \"::1\"\nthreshold = 0\n"),
              "*:*:-:-:0:*:6/00000000000000000000000000000001/128");
    EXPECT_NE(refusal("[[rule]]\nuser = 0\nspin = \"off\"").find("spin in a rule with a user"),
              std::string::npos);
}

TEST(ConfigFile, WhatIsTakenForGranted) {
    EXPECT_EQ(parse_config("assume = \"strict\"", "test.toml").assume, "strict");
    EXPECT_EQ(parse_config("assume = \"fuse\"", "test.toml").assume, "fuse");
    EXPECT_EQ(parse_config("", "test.toml").assume, std::nullopt);
}

TEST(ConfigFile, RulesKeepTheirOrderAndTheDefaultsComeLast) {
    EXPECT_EQ(rules_of("spin = 20\nthreshold = 100\n[[rule]]\nport = 1\nlane = \"on\"\n"
                       "[[rule]]\nport = 65535\nlane = \"off\"\n"),
              "*:1:on:-:-;*:65535:off:-:-;*:*:-:20:100");
}

TEST(ConfigFile, SpinIsAWordOrANumber) {
    EXPECT_EQ(rules_of("spin = \"auto\""), "*:*:-:auto:-");
    EXPECT_EQ(rules_of("spin = \"off\""), "*:*:-:off:-");
    EXPECT_EQ(rules_of("spin = 1000000"), "*:*:-:1000000:-");
    EXPECT_EQ(rules_of("spin = \"15\""), "*:*:-:15:-");
}

TEST(ConfigFile, WhatIsDecidedElsewhereIsLeftOut) {
    const char* text = "spin = 20\nthreshold = 100\n[[rule]]\nprogram = \"a\"\nspin = 3\nthreshold = 4\n";
    EXPECT_EQ(rules_of(text), "a:*:-:3:4;*:*:-:20:100");
    EXPECT_EQ(rules_of(text, true, false), "a:*:-:-:4;*:*:-:-:100");
    EXPECT_EQ(rules_of(text, false, true), "a:*:-:3:-;*:*:-:20:-");
    EXPECT_EQ(rules_of(text, true, true), "");
}

TEST(ConfigFile, NotToml) {
    EXPECT_EQ(refusal("spin = = 3\n").rfind("test.toml:1:8: not TOML: ", 0), 0u) << refusal("spin = = 3\n");
    EXPECT_EQ(refusal("\n\n[[rule\n").rfind("test.toml:3:", 0), 0u) << refusal("\n\n[[rule\n");
}

TEST(ConfigFile, UnknownKeysGetASuggestion) {
    EXPECT_EQ(refusal("spni = \"auto\""),
              "test.toml:1:1: unknown key 'spni' at the top; expected one of spin, threshold, assume, rule; "
              "did you mean 'spin'?");
    EXPECT_EQ(
        refusal("[[rule]]\nlane = \"on\"\nprot = 3"),
        "test.toml:3:1: unknown key 'prot' in a rule; expected one of program, port, user, address, lane, "
        "spin, threshold; did you mean 'port'?");
    EXPECT_EQ(
        refusal("elephant = 1"),
        "test.toml:1:1: unknown key 'elephant' at the top; expected one of spin, threshold, assume, rule");
}

TEST(ConfigFile, WrongValues) {
    struct Case {
        const char* text;
        const char* expected;
    };
    const Case cases[] = {
        {"spin = \"sometimes\"", "1:8: spin is \"sometimes\"; expected \"off\", \"auto\" or a number of "
                                 "microseconds up to 1000000"},
        {"spin = 1000001",
         "1:8: spin is 1000001; expected \"off\", \"auto\" or a number of microseconds up to 1000000"},
        {"spin = -1",
         "1:8: spin is -1; expected \"off\", \"auto\" or a number of microseconds up to 1000000"},
        {"spin = true",
         "1:8: spin is true; expected \"off\", \"auto\" or a number of microseconds up to 1000000"},
        {"threshold = -1", "1:13: threshold is -1; expected a number of bytes, 0 to 999999999999999999"},
        {"threshold = \"2k\"",
         "1:13: threshold is \"2k\"; expected a number of bytes, 0 to 999999999999999999"},
        {"threshold = 1.5", "1:13: threshold is 1.5; expected a number of bytes, 0 to 999999999999999999"},
        {"threshold = [1]",
         "1:13: threshold is an array; expected a number of bytes, 0 to 999999999999999999"},
        {"threshold = 1000000000000000000",
         "1:13: threshold is 1000000000000000000; expected a number of bytes, 0 to 999999999999999999"},
        {"rule = 3", "1:8: rule is 3; expected [[rule]], with double brackets"},
        {"[rule]\nlane = \"on\"", "1:1: rule is a table; expected [[rule]], with double brackets"},
        {"[[rule]]\nlane = true", "2:8: lane is true; expected \"on\" or \"off\""},
        {"[[rule]]\nlane = \"ring\"", "2:8: lane is \"ring\"; expected \"on\" or \"off\""},
        {"[[rule]]\nlane = \"on\"\nport = 0", "3:8: port is 0; expected a number from 1 to 65535, or \"*\""},
        {"[[rule]]\nlane = \"on\"\nport = 65536",
         "3:8: port is 65536; expected a number from 1 to 65535, or \"*\""},
        {"[[rule]]\nlane = \"on\"\nport = \"http\"",
         "3:8: port is \"http\"; expected a number from 1 to 65535, or \"*\""},
        {"[[rule]]\nlane = \"on\"\nprogram = \"/usr/bin/x\"",
         "3:11: program is \"/usr/bin/x\"; expected the base name of a program, without '/', ':' or ';', or "
         "\"*\""},
        {"[[rule]]\nlane = \"on\"\nprogram = \"a;b\"",
         "3:11: program is \"a;b\"; expected the base name of a program, without '/', ':' or ';', or \"*\""},
        {"[[rule]]\nlane = \"on\"\nprogram = \"\"",
         "3:11: program is \"\"; expected the base name of a program, without '/', ':' or ';', or \"*\""},
        {"assume = \"no\"", "1:10: assume is \"no\"; expected \"fuse\" or \"strict\""},
        {"[[rule]]\nlane = \"off\"\nuser = \"no such user\"",
         "3:8: user is \"no such user\"; expected the name of a user of this host, or a number"},
        {"[[rule]]\nlane = \"off\"\naddress = \"10.0.0.0/33\"",
         "3:11: address is \"10.0.0.0/33\"; expected an IPv4 or IPv6 address, with /BITS or without"},
        {"[[rule]]\nlane = \"off\"\naddress = \"::1/\"",
         "3:11: address is \"::1/\"; expected an IPv4 or IPv6 address, with /BITS or without"},
        {"[[rule]]\nlane = \"off\"\naddress = 7",
         "3:11: address is 7; expected an IPv4 or IPv6 address, with /BITS or without"},
        {"[[rule]]\nport = 3", "1:1: a rule that decides nothing; expected lane, spin or threshold in it"},
    };
    for (const Case& one : cases)
        EXPECT_EQ(refusal(one.text), std::string("test.toml:") + one.expected) << one.text;
}

TEST(ConfigFile, SpinBelongsToAProcessNotToAPort) {
    EXPECT_NE(
        refusal("[[rule]]\nport = 80\nspin = \"off\"").find("test.toml:3:8: spin in a rule with a port"),
        std::string::npos);
}

TEST(ConfigFile, AllMistakesAreNamedInTheOrderOfTheFile) {
    const std::string all =
        refusal("threshold = -1\n[[rule]]\nlane = 1\n[[rule]]\nport = 0\nlane = \"on\"\n");
    EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 2);
    EXPECT_LT(all.find("test.toml:1:"), all.find("test.toml:3:"));
    EXPECT_LT(all.find("test.toml:3:"), all.find("test.toml:5:"));
}

TEST(ConfigFile, MoreRulesThanTheLibraryHolds) {
    std::string text;
    for (int i = 0; i < 63; ++i)
        text += "[[rule]]\nlane = \"on\"\n";
    EXPECT_EQ(refusal(text), "accepted");
    EXPECT_NE(refusal(text + "[[rule]]\nlane = \"on\"\n").find("64 rules; at most 63"), std::string::npos);
}

TEST(ConfigFile, MissingFileAndDirectory) {
    EXPECT_THROW(read_config("/nonexistent/loopfast.toml"), Failure);
    EXPECT_THROW(read_config("/tmp"), Failure);
}

TEST(DefaultConfigFile, FollowsXdgConfigHome) {
    char directory[] = "/tmp/loopfast-config-XXXXXX";
    ASSERT_NE(mkdtemp(directory), nullptr);
    std::filesystem::create_directory(std::string(directory) + "/loopfast");
    const std::string file = std::string(directory) + "/loopfast/loopfast.toml";
    std::ofstream(file) << "spin = 1\n";
    setenv("XDG_CONFIG_HOME", directory, 1);
    EXPECT_EQ(default_config_file(), file);
    EXPECT_EQ(compile_rules(read_config(file), false, false), "*:*:-:1:-");
    std::filesystem::remove(file);
    EXPECT_NE(default_config_file(), file);
    std::filesystem::remove_all(directory);
}

TEST(Values, SpinAndThreshold) {
    for (const char* good : {"off", "auto", "0", "50", "1000000"})
        EXPECT_TRUE(is_spin(good)) << good;
    for (const char* bad : {"", "on", "-1", "1.5", "1000001", "50us", " 5"})
        EXPECT_FALSE(is_spin(bad)) << bad;
    for (const char* good : {"0", "2048", "999999999999999999"})
        EXPECT_TRUE(is_threshold(good)) << good;
    for (const char* bad : {"", "-1", "2k", "1e3", "1000000000000000000", "auto"})
        EXPECT_FALSE(is_threshold(bad)) << bad;
}

}  // namespace
}  // namespace loopfast::cli
