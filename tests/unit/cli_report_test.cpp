// What the command prints: tables, the demo's medians and ratios, the status of connections, suggestions,
// and what it reads from /proc/PID/maps.
#include <gtest/gtest.h>

#include "cli/demo_report.h"
#include "cli/histogram.h"
#include "cli/processes.h"
#include "cli/status_report.h"
#include "cli/suggestion.h"
#include "cli/table.h"

namespace loopfast::cli {
namespace {

TEST(Table, ColumnsAreAsWideAsTheirContent) {
    EXPECT_EQ(format_table({{"NAME"}, {"N", true}}, {{"a", "1"}, {"longer", "1000"}}), "NAME       N\n"
                                                                                       "a          1\n"
                                                                                       "longer  1000\n");
    EXPECT_EQ(format_table({{"A"}, {"B"}}, {}), "A  B\n");
}

TEST(Histogram, PercentilesAreExactToOnePercent) {
    Histogram histogram;
    EXPECT_EQ(histogram.percentile(0.5), 0);
    for (uint64_t value = 1; value <= 100'000; ++value)
        histogram.add(value);
    EXPECT_EQ(histogram.count(), 100'000u);
    EXPECT_NEAR(histogram.percentile(0.5), 50'000, 500);
    EXPECT_NEAR(histogram.percentile(0.99), 99'000, 990);
    Histogram small;
    small.add(5);
    EXPECT_EQ(small.percentile(0.5), 5);
    EXPECT_EQ(small.percentile(0.99), 5);
}

TEST(Histogram, TakesAnyValue) {
    Histogram histogram;
    histogram.add(0);
    histogram.add(UINT64_MAX);
    EXPECT_EQ(histogram.percentile(0), 0);
    EXPECT_GT(histogram.percentile(0.9), 1e19);
}

TEST(Demo, MediansAndRatios) {
    EXPECT_EQ(median({}), 0);
    EXPECT_EQ(median({3, 1, 2}), 2);
    EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
    const std::vector<Series> all{
        {.work = "pingpong",
         .lane = "kernel",
         .spin = "-",
         .p50 = {30e3, 20e3, 40e3},
         .p99 = {60e3},
         .bytes_per_second = {}},
        {.work = "pingpong",
         .lane = "ring",
         .spin = "auto",
         .p50 = {500},
         .p99 = {1000},
         .bytes_per_second = {}},
        {.work = "stream", .lane = "kernel", .spin = "-", .p50 = {}, .p99 = {}, .bytes_per_second = {2e9}},
        {.work = "stream", .lane = "ring", .spin = "off", .p50 = {}, .p99 = {}, .bytes_per_second = {12e9}},
    };
    const auto json = demo_json(all);
    EXPECT_EQ(json[1]["ratio"]["p50"], 60);
    EXPECT_EQ(json[1]["ratio"]["p99"], 60);
    EXPECT_EQ(json[0]["spin"], nullptr);
    EXPECT_EQ(json[3]["ratio"]["bytes_per_second"], 6);
    const std::string table = demo_table(all);
    EXPECT_NE(table.find("30.00 us"), std::string::npos) << table;
    EXPECT_NE(table.find("60.0x"), std::string::npos) << table;
    EXPECT_NE(table.find("12.00 GB/s"), std::string::npos) << table;
}

TEST(Status, TableAndJson) {
    const std::vector<ProcessStatus> processes{
        {.pid = 7, .program = "idle", .note = "starting", .connections = {}},
        {.pid = 8,
         .program = "server",
         .note = {},
         .connections = {{.fd = 5,
                          .local = "127.0.0.1:80",
                          .peer = "127.0.0.1:4000",
                          .role = "acceptor",
                          .lane = "ring",
                          .reason = "",
                          .objection = "",
                          .bytes_sent = 1'210'000,
                          .bytes_received = 999,
                          .messages_sent = 3,
                          .messages_received = 4,
                          .bells = 1,
                          .sleeps = 2}}}};
    const std::string table = status_table(processes);
    EXPECT_NE(table.find("1.21 MB"), std::string::npos) << table;
    EXPECT_NE(table.find("999 B"), std::string::npos) << table;
    EXPECT_NE(table.find("starting"), std::string::npos) << table;
    EXPECT_NE(table.find("idle"), std::string::npos) << table;
    const auto json = status_json(processes);
    EXPECT_EQ(json[0]["connections"].size(), 0u);
    EXPECT_EQ(json[1]["connections"][0]["bytes_sent"], 1'210'000);
    EXPECT_EQ(json[1]["connections"][0]["reason"], nullptr);
}

TEST(Status, AnObjectionNamesItsKindOnce) {
    std::vector<ProcessStatus> processes{
        {.pid = 8, .program = "server", .note = {}, .connections = {{}, {}}}};
    processes[0].connections[0].reason = "capture";
    processes[0].connections[0].objection = "capture: packet socket 1 on lo, user 0";
    processes[0].connections[1].reason = "filter";
    processes[0].connections[1].objection = "nftables: a rule";
    const std::string table = status_table(processes);
    EXPECT_NE(table.find("\ncapture: packet socket 1 on lo, user 0\n"), std::string::npos) << table;
    EXPECT_NE(table.find("\nfilter: nftables: a rule\n"), std::string::npos) << table;
}

TEST(Maps, OnlyTheArenaIsTaken) {
    const std::string maps =
        "55d0c8e00000-55d0c8e21000 rw-p 00000000 00:00 0                          [heap]\n"
        "7f0000000000-7f0000100000 rw-s 00001000 00:01 1234                       /memfd:loopfast-family "
        "(deleted)\n"
        "7f0000200000-7f0000300000 rw-s 00000000 00:01 1235                       /memfd:other (deleted)\n";
    const auto found = arena_mappings(maps);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].address, 0x7f0000000000u);
    EXPECT_EQ(found[0].size, 0x100000u);
    EXPECT_EQ(found[0].offset, 0x1000u);
    EXPECT_EQ(found[0].inode, 1234u);
}

TEST(Maps, AFileThatCannotBeReadIsNoException) {
    EXPECT_EQ(read_whole("/proc/self/comm"), "cli_report_test\n");
    EXPECT_EQ(read_whole("/nowhere"), std::nullopt);
    // It opens, and nothing is at its beginning: the read fails, as one of a process's maps does that has
    // ended.
    EXPECT_EQ(read_whole("/proc/self/mem"), std::nullopt);
}

TEST(Suggestion, NearEnoughOrNone) {
    EXPECT_EQ(nearest("spni", {"spin", "threshold"}), "spin");
    EXPECT_EQ(nearest("treshold", {"spin", "threshold"}), "threshold");
    EXPECT_EQ(nearest("elephant", {"spin", "threshold"}), "");
    EXPECT_EQ(did_you_mean("prot", {"port"}), "; did you mean 'port'?");
    EXPECT_EQ(did_you_mean("xyz", {"port"}), "");
}

}  // namespace
}  // namespace loopfast::cli
