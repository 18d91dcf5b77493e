// See worker.h, and cases.h for the registry.
#include "worker.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "cases.h"

namespace differential {

namespace {

/// A case that takes longer hangs; the longest take well under a second on an idle machine.
constexpr int kTimeLimit = 25'000;

std::vector<Case>& registry() {
    static std::vector<Case> cases;
    return cases;
}

[[noreturn]] void run_case(const Case& chosen, uint64_t parameter, const Lane& lane, const Setup& setup,
                           int out) {
    Script script(out);
    Pair pair(script, setup, lane);
    pair.parameter = parameter;
    if ((chosen.needs & kBare) == 0)
        pair.establish();
    chosen.function(pair);
    if ((chosen.needs & kBare) == 0) {
        pair.observe(pair.a, "end");
        pair.observe(pair.b, "end");
    }
    script.finish();
    _exit(0);
}

/// A group of its own, so that everything a hanging case left can be ended.
std::string run_apart(const Case& chosen, uint64_t parameter, const Lane& lane, const Setup& setup, int out) {
    const pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_case(chosen, parameter, lane, setup, out);
    }
    setpgid(pid, pid);
    int status = 0;
    const bool ended = await([&] { return waitpid(pid, &status, WNOHANG) == pid; }, kTimeLimit);
    ::kill(-pid, SIGKILL);
    if (!ended) {
        waitpid(pid, &status, 0);
        return "hang";
    }
    if (WIFSIGNALED(status))
        return format("signal %d", WTERMSIG(status));
    return WEXITSTATUS(status) == 0 ? "ok" : format("status %d", WEXITSTATUS(status));
}

}  // namespace

Registration::Registration(const char* name, Function function, unsigned needs, const char* file) {
    auto& cases = registry();
    const std::string subject(file);
    const Case added{name, function, needs, subject.substr(0, subject.find('.'))};
    cases.insert(std::upper_bound(cases.begin(), cases.end(), added,
                                  [](const Case& x, const Case& y) { return x.name < y.name; }),
                 added);
}

const std::vector<Case>& all_cases() { return registry(); }

const Case* find_case(const std::string& name) {
    for (const Case& entry : registry())
        if (entry.name == name)
            return &entry;
    return nullptr;
}

namespace {

/// left:HOW:WHEN[:END], for the library in which streams leave: its environment, or nothing.
std::vector<std::pair<std::string, std::string>> plan_of(const std::string& name) {
    std::vector<std::string> parts;
    for (size_t at = 0; at <= name.size();) {
        const size_t end = std::min(name.find(':', at), name.size());
        parts.push_back(name.substr(at, end - at));
        at = end + 1;
    }
    const auto is_one_of = [](const std::string& text, std::initializer_list<const char*> values) {
        return std::any_of(values.begin(), values.end(), [&](const char* value) { return text == value; });
    };
    if (parts.size() < 3 || parts.size() > 4 || parts[0] != "left" ||
        !is_one_of(parts[1], {"peer", "waited", "kept"}))
        return {};
    const bool random = parts[2][0] == 's';
    const std::string number = parts[2].substr(random ? 1 : 0);
    if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos ||
        (parts.size() == 4 && !is_one_of(parts[3], {"connector", "acceptor", "both"})))
        return {};
    return {{"LOOPFAST_LEAVE_HOW", parts[1]},
            {random ? "LOOPFAST_LEAVE_SEED" : "LOOPFAST_LEAVE_AT", number},
            {"LOOPFAST_LEAVE_END", parts.size() == 4 ? parts[3] : "both"}};
}

}  // namespace

Lane parse_lane(const std::string& name) {
    if (name == "kernel")
        return {name, false, false, false};
    if (name == "kernel-warm")
        return {name, false, true, false};
    if (name == "ring")
        return {name, true, true, true};
    if (name == "early")
        return {name, true, false, false};
    if (name.rfind("run:", 0) == 0 && name.size() > 4 &&
        name.find_first_not_of("0123456789", 4) == std::string::npos)
        return {name, false, false, false};
    if (auto plan = plan_of(name); !plan.empty())
        return {name, true, true, true, plan};
    return {};
}

int work(const Lane& lane, const Setup& setup, const std::vector<std::string>& cases, int out) {
    Script reporter(out);
    for (const auto& wanted : cases) {
        const size_t at = wanted.find('@');
        const Case* const chosen = find_case(wanted.substr(0, at));
        if (chosen == nullptr)
            return 2;
        const uint64_t parameter =
            at == std::string::npos ? 0 : strtoull(wanted.c_str() + at + 1, nullptr, 10);
        reporter.line("=case " + wanted);
        reporter.line("=end " + run_apart(*chosen, parameter, lane, setup, out));
    }
    return 0;
}

}  // namespace differential
