// See demo.h.
#include "cli/demo.h"

#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>

#include "cli/child.h"
#include "cli/demo_report.h"
#include "cli/failure.h"
#include "cli/program.h"
#include "cli/run.h"

extern char** environ;

namespace loopfast::cli {

namespace {

/// The processors for server and client: different ones where there are two.
struct Placement {
    int server = -1;
    int client = -1;
};

Placement place() {
    cpu_set_t usable;
    CPU_ZERO(&usable);
    if (sched_getaffinity(0, sizeof usable, &usable) != 0 || CPU_COUNT(&usable) < 2)
        return {};
    // The first and the last: neighbours in number are often two threads of one core.
    Placement placement;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &usable))
            continue;
        if (placement.server < 0)
            placement.server = cpu;
        placement.client = cpu;
    }
    return placement;
}

/// Our environment without anything of loopfast's, then, for the ring lane, with what `loopfast run` sets.
std::vector<std::string> child_environment(const Series& series, const std::string& library) {
    std::vector<std::string> environment;
    std::string preload;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        if (text.starts_with("LD_PRELOAD="))
            preload = text.substr(text.find('=') + 1);
        else if (!text.starts_with("LOOPFAST"))
            environment.emplace_back(text);
    }
    if (const size_t ours = preload.find(library); ours != std::string::npos)
        preload.erase(ours, library.size());
    if (series.lane == "ring") {
        environment.push_back("LOOPFAST=on");
        environment.push_back("LOOPFAST_SPIN=" + series.spin);
        preload = preload.empty() ? library : library + ":" + preload;
    }
    if (!preload.empty())
        environment.push_back("LD_PRELOAD=" + preload);
    return environment;
}

/// One measurement: a server, a client, and the proof that the lane was the one that is claimed.
void measure(Series& series, const DemoOptions& options, const std::string& library,
             const Placement& placement) {
    const auto environment = child_environment(series, library);
    const auto patience = std::chrono::milliseconds(static_cast<long>(options.seconds * 1000) + 10'000);
    Child server({"demo-server", "--work", series.work, "--cpu", std::to_string(placement.server)},
                 environment);
    const std::string port = server.line(patience);
    Child client({"demo-client", "--work", series.work, "--cpu", std::to_string(placement.client), "--port",
                  port, "--seconds", fmt::format("{}", options.seconds), "--lane", series.lane},
                 environment);
    const auto result = nlohmann::json::parse(client.line(patience));
    const int client_status = client.wait(patience);
    const int server_status = server.wait(patience);
    if (client_status != 0 || server_status != 0)
        throw Failure(kFailed, fmt::format("demo-client ended with {}, demo-server with {}", client_status,
                                           server_status));
    if (result.at("lane") != series.lane)
        throw Failure(kFailed,
                      fmt::format("the connection was on the {} lane instead of the {} lane (reason: {}); "
                                  "these figures would be false",
                                  result.at("lane").get<std::string>(), series.lane,
                                  result.at("reason").get<std::string>()));
    if (series.work == "stream") {
        series.bytes_per_second.push_back(result.at("bytes_per_second"));
    } else {
        series.p50.push_back(result.at("p50"));
        series.p99.push_back(result.at("p99"));
    }
}

/// A line on standard error that rewrites itself, if somebody is looking.
class Progress {
public:
    void show(const std::string& text) const {
        if (terminal_)
            fmt::print(stderr, "\r\033[K{}", text);
    }
    Progress() = default;
    ~Progress() {
        if (terminal_)
            fputs("\r\033[K", stderr);
    }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

private:
    bool terminal_ = isatty(STDERR_FILENO) != 0;
};

}  // namespace

int demo(const DemoOptions& options) {
    const std::string library = find_library();
    const Placement placement = place();
    std::vector<Series> all;
    for (const char* work : {"pingpong", "stream"}) {
        all.push_back(
            {.work = work, .lane = "kernel", .spin = "-", .p50 = {}, .p99 = {}, .bytes_per_second = {}});
        for (const char* spin : {"auto", "off"})
            all.push_back(
                {.work = work, .lane = "ring", .spin = spin, .p50 = {}, .p99 = {}, .bytes_per_second = {}});
    }
    {
        const Progress progress;
        for (int round = 0; round < options.rounds; ++round) {
            for (Series& series : all) {
                progress.show(fmt::format("round {} of {}: {}, {} lane, spin {}", round + 1, options.rounds,
                                          series.work, series.lane, series.spin));
                measure(series, options, library, placement);
            }
        }
    }
    if (options.json) {
        nlohmann::json cpus;
        if (placement.server >= 0)
            cpus = {placement.server, placement.client};
        const nlohmann::json report{{"rounds", options.rounds},
                                    {"seconds", options.seconds},
                                    {"cpus", cpus},
                                    {"results", demo_json(all)}};
        fmt::print("{}\n", report.dump(2));
        return 0;
    }
    fmt::print("{}", demo_table(all));
    fmt::print("\nMedians of {} rounds of {} s; two processes over TCP on 127.0.0.1, ", options.rounds,
               options.seconds);
    if (placement.server >= 0)
        fmt::print("on processors {} and {}. ", placement.server, placement.client);
    else
        fmt::print("sharing the one usable processor, where spinning is never done. ");
    fmt::print("The lane of each\nconnection was asked for and was as shown. "
               "What else runs on the machine meanwhile spoils the figures.\n");
    return 0;
}

}  // namespace loopfast::cli
