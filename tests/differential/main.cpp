// The differential harness: runs cases over kernel TCP and over loopfast and compares their traces. README.md
// says how it is used; `differential --help` its options.
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cases.h"
#include "compare.h"
#include "conformance.h"
#include "worker.h"

namespace differential {

namespace {

constexpr const char* kHelp = R"(usage: differential [OPTIONS]

Runs cases over kernel TCP and over loopfast, and compares what they saw.

  --library FILE      libloopfast.so
  --leaving FILE      the library in which streams leave the ring, for lane left:...
  --case PATTERN      which cases: names with *, separated by commas; NAME@NUMBER for one seed (default: all)
  --lanes LANES       ring    both ends opt in; the case begins on the ring (asserted)
                      early   both ends opt in; the case begins with the connection's first byte
                      run:N   LOOPFAST=on with a threshold of N bytes
                      left:HOW:N[:END]  as ring; at its N-th occasion END (connector, acceptor, both) leaves,
                              what is unread left to the peer, waited for or kept (HOW: peer, waited, kept);
                              for N also sSEED: by chance
                      separated by commas (default: ring,early,run:9)
  --processes HOW     one, before (fork, then connect), after (connect, then fork), users (two of them)
  --family FAMILY     v4, v6, mapped
  --swap              a is the accepting end
  --nonblocking       both ends are
  --seeds FROM-TO     of random cases
  --steps N           of random cases
  --only N,N,...      of random cases: only these steps
  --shrink            find a smaller set of steps that still differs
  --trace             print the whole traces
  --all               also run what is known to hang
  --list              print the names of the cases
  --conformance       try every call, print the table that docs/conformance.md has
  --table             print the table of cases and known differences that the README has

Ends with 0 when nothing differed, 1 when something did, 77 when it cannot be run here.
)";

bool matches(const char* pattern, const char* name) {
    if (*pattern == '*')
        return matches(pattern + 1, name) || (*name != 0 && matches(pattern, name + 1));
    return *pattern == *name && (*pattern == 0 || matches(pattern + 1, name + 1));
}

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts;
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find(',', at), text.size());
        if (end > at)
            parts.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return parts;
}

struct Arguments {
    Comparison comparison;
    std::string cases;
    uint64_t first_seed = 1;
    uint64_t last_seed = 10;
    bool shrink = false;
    std::string worker;  ///< the lane, when this is a worker
};

[[noreturn]] void refuse(const std::string& text) {
    fprintf(stderr, "differential: %s\n", text.c_str());
    exit(2);
}

template <typename Value>
Value one_of(const char* option, const std::string& text,
             const std::vector<std::pair<const char*, Value>>& values) {
    std::string expected;
    for (const auto& [name, value] : values) {
        if (text == name)
            return value;
        expected += std::string(expected.empty() ? "" : ", ") + name;
    }
    refuse(std::string("--") + option + " is '" + text + "'; expected one of " + expected);
}

Arguments parse(int count, char** values) {
    enum {
        kLibrary = 256,
        kLeaving,
        kCase,
        kLanes,
        kProcesses,
        kFamily,
        kSwap,
        kNonblocking,
        kSeeds,
        kSteps,
        kOnly,
        kShrink,
        kTrace,
        kAll,
        kList,
        kTable,
        kConformance,
        kProbeRows,
        kHelpOption,
        kWorker
    };
    static const option kOptions[] = {{"library", 1, nullptr, kLibrary},
                                      {"leaving", 1, nullptr, kLeaving},
                                      {"case", 1, nullptr, kCase},
                                      {"lanes", 1, nullptr, kLanes},
                                      {"processes", 1, nullptr, kProcesses},
                                      {"family", 1, nullptr, kFamily},
                                      {"swap", 0, nullptr, kSwap},
                                      {"nonblocking", 0, nullptr, kNonblocking},
                                      {"seeds", 1, nullptr, kSeeds},
                                      {"steps", 1, nullptr, kSteps},
                                      {"only", 1, nullptr, kOnly},
                                      {"shrink", 0, nullptr, kShrink},
                                      {"trace", 0, nullptr, kTrace},
                                      {"all", 0, nullptr, kAll},
                                      {"list", 0, nullptr, kList},
                                      {"table", 0, nullptr, kTable},
                                      {"conformance", 0, nullptr, kConformance},
                                      {"probe-rows", 0, nullptr, kProbeRows},
                                      {"help", 0, nullptr, kHelpOption},
                                      {"worker", 1, nullptr, kWorker},
                                      {}};
    Arguments arguments;
    Comparison& comparison = arguments.comparison;
    Setup& setup = comparison.setup;
    comparison.program = values[0];
    comparison.library = LOOPFAST_LIBRARY;
    comparison.leaving_library = LOOPFAST_LEAVING_LIBRARY;
    comparison.lanes = {"ring", "early", "run:9"};
    int option;
    while ((option = getopt_long(count, values, "", kOptions, nullptr)) != -1) {
        const std::string value = optarg != nullptr ? optarg : "";
        switch (option) {
        case kLibrary:
            comparison.library = value;
            break;
        case kLeaving:
            comparison.leaving_library = value;
            break;
        case kCase:
            arguments.cases = value;
            break;
        case kLanes:
            comparison.lanes = split(value);
            break;
        case kProcesses:
            setup.processes = one_of<Processes>("processes", value,
                                                {{"one", Processes::kOne},
                                                 {"before", Processes::kForkBefore},
                                                 {"after", Processes::kForkAfter},
                                                 {"users", Processes::kUsers}});
            break;
        case kFamily:
            setup.family = one_of<Family>(
                "family", value, {{"v4", Family::kV4}, {"v6", Family::kV6}, {"mapped", Family::kMapped}});
            break;
        case kSwap:
            setup.swapped = true;
            break;
        case kNonblocking:
            setup.nonblocking = true;
            break;
        case kSeeds:
            if (sscanf(value.c_str(), "%lu-%lu", &arguments.first_seed, &arguments.last_seed) != 2)
                refuse("--seeds is '" + value + "'; expected FROM-TO");
            break;
        case kSteps:
            setup.steps = strtoull(value.c_str(), nullptr, 10);
            break;
        case kOnly:
            setup.only = value;
            break;
        case kShrink:
            arguments.shrink = true;
            break;
        case kTrace:
            comparison.whole_traces = true;
            break;
        case kAll:
            comparison.all = true;
            break;
        case kWorker:
            arguments.worker = value;
            break;
        case kList:
            for (const Case& entry : all_cases())
                puts(entry.name.c_str());
            exit(0);
        case kConformance:
            exit(print_conformance(comparison.program, comparison.library));
        case kProbeRows:
            exit(probe_rows(1));
        case kTable:
            print_table();
            exit(0);
        case kHelpOption:
            fputs(kHelp, stdout);
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < count)
        refuse(std::string("'") + values[optind] + "' is not an option; see --help");
    return arguments;
}

bool fits(const Case& entry, const Setup& setup) {
    if ((entry.needs & kOneProcess) != 0 && setup.processes != Processes::kOne)
        return false;
    return (entry.needs & kBlocking) == 0 || !setup.nonblocking;
}

std::vector<std::string> chosen(const Arguments& arguments) {
    std::vector<std::string> names;
    const auto patterns = split(arguments.cases.empty() ? "*" : arguments.cases);
    const auto wanted = [&](const std::string& name) {
        for (const auto& pattern : patterns)
            if (matches(pattern.c_str(), name.c_str()))
                return true;
        return false;
    };
    for (const auto& pattern : patterns)  // one seed of a random case
        if (pattern.find('@') != std::string::npos &&
            find_case(pattern.substr(0, pattern.find('@'))) != nullptr)
            names.push_back(pattern);
    for (const Case& entry : all_cases()) {
        if (!fits(entry, arguments.comparison.setup) || !wanted(entry.name))
            continue;
        if ((entry.needs & kParameter) == 0) {
            names.push_back(entry.name);
            continue;
        }
        for (uint64_t seed = arguments.first_seed; seed <= arguments.last_seed; ++seed)
            names.push_back(entry.name + "@" + std::to_string(seed));
    }
    return names;
}

int main_program(int count, char** values) {
    const Arguments arguments = parse(count, values);
    if (!arguments.worker.empty())
        return work(parse_lane(arguments.worker), arguments.comparison.setup, split(arguments.cases), 1);
    for (const auto& lane : arguments.comparison.lanes)
        if (parse_lane(lane).name.empty())
            refuse("there is no lane '" + lane + "'; expected ring, early, run:N or left:HOW:N");
    if (arguments.comparison.setup.processes == Processes::kUsers && geteuid() != 0) {
        puts("skipped: another user can be had only by root");
        return 77;
    }
    const auto names = chosen(arguments);
    if (names.empty())
        refuse("no case is called '" + arguments.cases + "', or none fits the other options");
    fflush(stdout);
    if (arguments.shrink)
        return shrink(arguments.comparison, names);
    return compare(arguments.comparison, names);
}

}  // namespace

}  // namespace differential

int main(int count, char** values) { return differential::main_program(count, values); }
