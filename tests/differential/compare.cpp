// See compare.h.
#include "compare.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <map>

#include "known_differences.h"
#include "worker.h"

namespace differential {

namespace {

/// What a case left behind in one lane.
struct Trace {
    std::vector<std::string> lines;
    std::string begun;    ///< the operation begun last
    std::string failure;  ///< the harness's own
    std::string end = "nothing: the worker ended before it";
    bool ring = false;  ///< it was seen on the ring at some time
    bool left = false;  ///< and not at its end
    bool good() const { return end == "ok" && failure.empty(); }
};

using Traces = std::map<std::string, Trace>;

std::string option_text(const Setup& setup) {
    static constexpr const char* kProcesses[] = {"one", "before", "after", "users"};
    static constexpr const char* kFamilies[] = {"v4", "v6", "mapped"};
    std::string text = std::string(" --processes ") + kProcesses[static_cast<int>(setup.processes)] +
                       " --family " + kFamilies[static_cast<int>(setup.family)];
    if (setup.swapped)
        text += " --swap";
    if (setup.nonblocking)
        text += " --nonblocking";
    text += format(" --steps %lu", static_cast<unsigned long>(setup.steps));
    if (!setup.only.empty())
        text += " --only " + setup.only;
    return text;
}

std::vector<std::string> words(const std::string& text) {
    std::vector<std::string> parts;
    for (size_t at = text.find_first_not_of(' '); at != std::string::npos;
         at = text.find_first_not_of(' ', at)) {
        const size_t end = std::min(text.find(' ', at), text.size());
        parts.push_back(text.substr(at, end - at));
        at = end;
    }
    return parts;
}

/// In the child: the environment of the lane. The kernel lanes do not load the library at all.
void prepare_environment(const Lane& lane, const Comparison& comparison) {
    for (const char* name :
         {"LD_PRELOAD", "LOOPFAST", "LOOPFAST_THRESHOLD", "LOOPFAST_RULES", "LOOPFAST_LEAVE_AT",
          "LOOPFAST_LEAVE_SEED", "LOOPFAST_LEAVE_HOW", "LOOPFAST_LEAVE_END"})
        unsetenv(name);
    if (lane.name.rfind("kernel", 0) == 0)
        return;
    setenv("LD_PRELOAD", (lane.leaves.empty() ? comparison.library : comparison.leaving_library).c_str(), 1);
    for (const auto& [name, value] : lane.leaves)
        setenv(name.c_str(), value.c_str(), 1);
    if (lane.name.rfind("run:", 0) == 0) {
        setenv("LOOPFAST", "on", 1);
        setenv("LOOPFAST_THRESHOLD", lane.name.c_str() + 4, 1);
    }
}

Traces parse_traces(const std::string& output) {
    Traces traces;
    Trace* current = nullptr;
    size_t at = 0;
    while (at < output.size()) {
        const size_t end = std::min(output.find('\n', at), output.size());
        const std::string line = output.substr(at, end - at);
        at = end + 1;
        if (line.rfind("=case ", 0) == 0)
            current = &traces[line.substr(6)];
        else if (current == nullptr || line.empty())
            continue;
        else if (line.rfind("=end ", 0) == 0)
            current->end = line.substr(5);
        else if (line[0] == '@')
            current->begun = line.substr(1);
        else if (line[0] == '!')
            current->failure = line.substr(1);
        else if (line[0] == '#')
            current->ring = true, current->left = line.find("at start") != std::string::npos;
        else
            current->lines.push_back(line);
    }
    return traces;
}

Traces run_lane(const Comparison& comparison, const std::string& lane,
                const std::vector<std::string>& cases) {
    std::string names;
    for (const auto& name : cases)
        names += (names.empty() ? "" : ",") + name;
    std::vector<std::string> arguments{"differential", "--worker", lane, "--case", names};
    for (auto& word : words(option_text(comparison.setup)))
        arguments.push_back(word);
    int pipe_ends[2];
    if (pipe2(pipe_ends, O_CLOEXEC) != 0) {
        perror("pipe");
        exit(2);
    }
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(pipe_ends[1], 1);
        prepare_environment(parse_lane(lane), comparison);
        std::vector<char*> pointers;
        for (auto& argument : arguments)
            pointers.push_back(argument.data());
        pointers.push_back(nullptr);
        execv("/proc/self/exe", pointers.data());
        _exit(127);
    }
    close(pipe_ends[1]);
    std::string output;
    char buffer[65536];
    for (;;) {
        const ssize_t got = read(pipe_ends[0], buffer, sizeof buffer);
        if (got <= 0 && errno == EINTR && got < 0)
            continue;
        if (got <= 0)
            break;
        output.append(buffer, static_cast<size_t>(got));
    }
    close(pipe_ends[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    if (status != 0)
        printf("the worker for lane %s ended with status %x\n", lane.c_str(), status);
    return parse_traces(output);
}

/// The lane whose trace is the truth for another.
std::string reference_of(const std::string& lane) { return parse_lane(lane).warm ? "kernel-warm" : "kernel"; }

bool agree(const Trace& truth, const Trace& trace) {
    return truth.good() && trace.good() && truth.lines == trace.lines;
}

/// What the kernel does is a set of traces where a case leaves it a choice that its scheduler makes: asked
/// again, does it ever do what was seen?
bool kernel_does_too(const Comparison& comparison, const std::string& lane, const std::string& name,
                     const Trace& trace) {
    constexpr int kTimes = 4;
    if (!trace.good())
        return false;
    for (int i = 0; i < kTimes; ++i)
        if (agree(run_lane(comparison, reference_of(lane), {name})[name], trace))
            return true;
    return false;
}

/// Whether a line of epoll_wait has all the events that the kernel's has, and perhaps more.
bool has_all_events(const std::string& truth, const std::string& line) {
    const size_t result = truth.find(" -> ");
    const size_t events = truth.find('[');
    const size_t ours = line.find('[');
    if (truth.find("epoll_wait") == std::string::npos || events == std::string::npos ||
        ours == std::string::npos || result == std::string::npos ||
        truth.compare(0, result, line, 0, line.find(" -> ")) != 0)
        return false;
    const std::string there = " " + line.substr(ours + 1, line.size() - ours - 2) + " ";
    for (const auto& event : words(truth.substr(events + 1, truth.size() - events - 2)))
        if (there.find(" " + event + " ") == std::string::npos)
            return false;
    return true;
}

/// Whether an edge that is told again, so many times at most, is all that differs.
bool only_edges_again(const Trace& truth, const Trace& trace, int most) {
    if (!truth.good() || !trace.good() || truth.lines.size() != trace.lines.size())
        return false;
    int again = 0;
    for (size_t i = 0; i < truth.lines.size(); ++i)
        if (truth.lines[i] != trace.lines[i] &&
            (++again > most || !has_all_events(truth.lines[i], trace.lines[i])))
            return false;
    return true;
}

void print_lines(const char* title, const Trace& trace, size_t from, size_t to) {
    for (size_t i = from; i < to && i < trace.lines.size(); ++i)
        printf("    %-8s %4zu  %s\n", title, i + 1, trace.lines[i].c_str());
    if (to >= trace.lines.size() && !trace.good())
        printf("    %-8s       %s%s%s, during: %s\n", title, trace.end.c_str(),
               trace.failure.empty() ? "" : ": ", trace.failure.c_str(), trace.begun.c_str());
}

size_t same_lines(const Trace& x, const Trace& y) {
    size_t same = 0;
    while (same < x.lines.size() && same < y.lines.size() && x.lines[same] == y.lines[same])
        ++same;
    return same;
}

void print_difference(const Comparison& comparison, const std::string& name, const std::string& lane,
                      const Trace& truth, const Trace& trace) {
    const size_t same = same_lines(truth, trace);
    const size_t before = comparison.whole_traces ? same : 8;
    const size_t after = comparison.whole_traces ? INT_MAX : 3;
    print_lines("both", truth, same > before ? same - before : 0, same);
    print_lines("kernel", truth, same, same + after);
    print_lines(lane.substr(0, lane.find(':')).c_str(), trace, same, same + after);
    printf("    again:   %s --library %s --case %s --lanes %s%s\n", comparison.program.c_str(),
           comparison.library.c_str(), name.c_str(), lane.c_str(), option_text(comparison.setup).c_str());
}

const KnownDifference* known(const std::string& name, const std::string& lane) {
    for (const auto& entry : kKnownDifferences) {
        const size_t length = strlen(entry.name);
        const bool prefix = length > 0 && entry.name[length - 1] == '*';
        if (prefix ? name.compare(0, length - 1, entry.name, length - 1) != 0 : name != entry.name)
            continue;
        const std::string kind = lane.substr(0, lane.find(':'));
        if (strcmp(entry.lanes, "*") == 0 || std::string(entry.lanes).find(kind) != std::string::npos)
            return &entry;
    }
    return nullptr;
}

}  // namespace

int compare(const Comparison& comparison, const std::vector<std::string>& cases) {
    std::map<std::string, Traces> truths;
    std::map<std::string, std::vector<std::string>> differing;  // what was printed last
    int different = 0;
    int compared = 0;
    int expected = 0;
    for (const auto& lane : comparison.lanes) {
        const std::string reference = reference_of(lane);
        if (truths.find(reference) == truths.end())
            truths[reference] = run_lane(comparison, reference, cases);
        std::vector<std::string> running;
        for (const auto& name : cases) {
            const KnownDifference* const listed = known(name, lane);
            if (listed != nullptr && listed->shows == Shows::kHangs && !comparison.all) {
                printf("known to hang, not run: %s in lane %s: %s\n", name.c_str(), lane.c_str(),
                       listed->reason);
                ++expected;
            } else {
                running.push_back(name);
            }
        }
        Traces traces = run_lane(comparison, lane, running);
        int on_ring = 0;
        int left = 0;
        const bool leaves = !parse_lane(lane).leaves.empty();
        for (const auto& name : running) {
            const Trace& truth = truths[reference][name];
            const Trace& trace = traces[name];
            ++compared;
            on_ring += trace.ring;
            left += trace.left;
            const bool same = agree(truth, trace);
            const KnownDifference* listed = known(name, lane);
            const int most = leaves ? 8 : 2;  // sets and duplicates of a random case
            // The kernel's acknowledgements are edges of its own; one that leaving loses is none of these.
            if (!same && listed != nullptr && listed->shows == Shows::kAgain &&
                !only_edges_again(truth, trace, most) && (leaves || !only_edges_again(trace, truth, most)))
                listed = nullptr;
            if (comparison.whole_traces && same) {
                printf("%s, %s and the kernel:\n", name.c_str(), lane.c_str());
                print_lines("both", truth, 0, truth.lines.size());
            }
            if (same && listed != nullptr && listed->shows == Shows::kAlways) {
                printf("NO LONGER DIFFERENT %s in lane %s: take it off the list of known differences\n",
                       name.c_str(), lane.c_str());
                ++different;
            } else if (!same && listed != nullptr) {
                printf("known to differ: %s in lane %s: %s\n", name.c_str(), lane.c_str(), listed->reason);
                ++expected;
            } else if (!same && kernel_does_too(comparison, lane, name, trace)) {
                printf("the kernel does either: %s in lane %s\n", name.c_str(), lane.c_str());
                print_difference(comparison, name, lane, truth, trace);
            } else if (!same) {
                printf("DIFFERENT %s in lane %s%s\n", name.c_str(), lane.c_str(),
                       differing[name] == trace.lines ? ", as before" : "");
                if (differing[name].empty() || differing[name] != trace.lines)
                    print_difference(comparison, name, lane, truth, trace);
                differing[name] = trace.lines;
                ++different;
            }
        }
        printf("lane %-8s %zu cases, %d seen on the ring", lane.c_str(), running.size(), on_ring);
        if (leaves)
            printf(", %d not at their end", left);
        puts("");
        // A comparison of the kernel with itself would prove nothing.
        if ((on_ring == 0 || (left == 0 && leaves)) && running.size() > 20) {
            printf("NOTHING was on the ring, or left it, in lane %s\n", lane.c_str());
            ++different;
        }
        fflush(stdout);
    }
    printf("%d compared, %d differ, %d more are known to\n", compared, different, expected);
    return different == 0 ? 0 : 1;
}

int shrink(const Comparison& comparison, const std::vector<std::string>& cases) {
    Comparison trial = comparison;
    const auto differs = [&](const std::vector<uint64_t>& steps) {
        trial.setup.only.clear();
        for (const uint64_t step : steps)
            trial.setup.only += (trial.setup.only.empty() ? "" : ",") + std::to_string(step);
        if (steps.empty())
            return false;
        for (const auto& lane : trial.lanes)
            for (const auto& name : cases) {
                Traces truth = run_lane(trial, reference_of(lane), {name});
                Traces trace = run_lane(trial, lane, {name});
                if (!agree(truth[name], trace[name]))
                    return true;
            }
        return false;
    };
    std::vector<uint64_t> steps;
    for (uint64_t i = 0; i < comparison.setup.steps; ++i)
        steps.push_back(i);
    if (!differs(steps)) {
        puts("nothing differs");
        return 0;
    }
    for (size_t piece = steps.size() / 2; piece > 0; piece = piece / 2) {
        for (size_t at = 0; at < steps.size();) {
            std::vector<uint64_t> fewer(steps.begin(), steps.begin() + static_cast<long>(at));
            if (at + piece < steps.size())
                fewer.insert(fewer.end(), steps.begin() + static_cast<long>(at + piece), steps.end());
            if (differs(fewer))
                steps = fewer;
            else
                at += piece;
        }
    }
    differs(steps);
    return compare(trial, cases);
}

}  // namespace differential
