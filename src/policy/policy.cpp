// See policy.h. The strings stay where they are, in the environment block, and are copied into fixed
// arrays: a program may change its environment later.
#include "policy/policy.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>

#include "base/cpu.h"
#include "base/log.h"

extern char* program_invocation_short_name;

namespace loopfast {

namespace {

constexpr int kMostRules = 64;

struct Rule {
    bool any_port;
    uint16_t port;
    enum : unsigned char { kUnsaid, kOn, kOff } lane;
    bool has_threshold;
    uint64_t threshold;
};

Rule rules[kMostRules];  // those that match this program
int rule_count = 0;
bool on_by_default = false;
bool strict = false;
uint64_t default_threshold = kDefaultThreshold;
int64_t spin = kDefaultSpin;
std::atomic<bool> forbidden_from_now_on{false};

bool parse_number(const char* text, int size, uint64_t& number) {
    if (size <= 0 || size > 18)
        return false;
    number = 0;
    for (int i = 0; i < size; ++i) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = number * 10 + static_cast<uint64_t>(text[i] - '0');
    }
    return true;
}

bool equals(const char* text, int size, const char* word) {
    return static_cast<int>(strlen(word)) == size && memcmp(text, word, static_cast<size_t>(size)) == 0;
}

struct Field {
    const char* text;
    int size;
};

/// One rule: five fields. A malformed one is dropped: the command line has checked them before, and a
/// library inside a server has nobody to complain to but the log.
void parse_rule(const char* text, int size, const char* program, bool& spin_set) {
    Field fields[5];
    int count = 0;
    int start = 0;
    for (int i = 0; i <= size; ++i) {
        if (i < size && text[i] != ':')
            continue;
        if (count == 5)
            return;
        fields[count++] = {text + start, i - start};
        start = i + 1;
    }
    if (count != 5)
        return;
    if (!equals(fields[0].text, fields[0].size, "*") && !equals(fields[0].text, fields[0].size, program))
        return;
    Rule rule{};
    uint64_t number = 0;
    rule.any_port = equals(fields[1].text, fields[1].size, "*");
    if (!rule.any_port) {
        if (!parse_number(fields[1].text, fields[1].size, number) || number > 65535)
            return;
        rule.port = static_cast<uint16_t>(number);
    }
    rule.lane = equals(fields[2].text, fields[2].size, "on")    ? Rule::kOn
                : equals(fields[2].text, fields[2].size, "off") ? Rule::kOff
                                                                : Rule::kUnsaid;
    if (!spin_set && rule.any_port) {  // spinning is a matter of the process, not of a port
        const int64_t value = parse_spin(fields[3].text, fields[3].size);
        if (value >= 0) {
            spin = value;
            spin_set = true;
        }
    }
    rule.has_threshold = parse_number(fields[4].text, fields[4].size, rule.threshold);
    if (rule_count < kMostRules)
        rules[rule_count++] = rule;
}

}  // namespace

int64_t parse_spin(const char* text, int size) {
    uint64_t number = 0;
    if (equals(text, size, "off"))
        return kSpinOff;
    if (equals(text, size, "auto"))
        return kDefaultSpin;
    if (!parse_number(text, size, number) || number > 1'000'000)
        return -1;
    return static_cast<int64_t>(number) * 1000;
}

void load_policy() {
    log_open(getenv("LOOPFAST_LOG"));
    const char* value = getenv("LOOPFAST");
    on_by_default = value != nullptr && (strcmp(value, "on") == 0 || strcmp(value, "1") == 0);
    value = getenv("LOOPFAST_THRESHOLD");
    uint64_t number = 0;
    if (value != nullptr && parse_number(value, static_cast<int>(strlen(value)), number))
        default_threshold = number;
    value = getenv("LOOPFAST_ASSUME");
    strict = value != nullptr && strcmp(value, "strict") == 0;
    bool spin_set = false;
    value = getenv("LOOPFAST_SPIN");
    if (value != nullptr) {
        const int64_t parsed = parse_spin(value, static_cast<int>(strlen(value)));
        if (parsed >= 0)
            spin = parsed;
        spin_set = parsed >= 0;
    }
    value = getenv("LOOPFAST_RULES");
    while (value != nullptr && *value != 0) {
        const char* end = strchr(value, ';');
        const int size = static_cast<int>(end != nullptr ? end - value : static_cast<long>(strlen(value)));
        parse_rule(value, size, program_invocation_short_name, spin_set);
        value = end != nullptr ? end + 1 : nullptr;
    }
    // A process that is bound to one processor may well spin: its peer runs on another one, or tells us that
    // it does not (peer_on_this_cpu). On a machine with one there is nobody to spin for.
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        spin = kSpinOff;
    LOOPFAST_LOG("loaded in %s: %s, threshold %llu, spin %lld ns", program_invocation_short_name,
                 on_by_default ? "on" : "off", static_cast<unsigned long long>(default_threshold),
                 static_cast<long long>(spin));
}

Decision decide(uint16_t port) {
    Decision decision{on_by_default, default_threshold};
    bool lane_said = false;
    bool threshold_said = false;
    for (int i = 0; i < rule_count; ++i) {
        const Rule& rule = rules[i];
        if (!rule.any_port && rule.port != port)
            continue;
        if (!lane_said && rule.lane != Rule::kUnsaid) {
            decision.on = rule.lane == Rule::kOn;
            lane_said = true;
        }
        if (!threshold_said && rule.has_threshold) {
            decision.threshold = rule.threshold;
            threshold_said = true;
        }
    }
    return decision;
}

bool decide_needs_port() {
    for (int i = 0; i < rule_count; ++i)
        if (!rules[i].any_port)
            return true;
    return false;
}

void forbid_setups() { forbidden_from_now_on.store(true, std::memory_order_relaxed); }
bool setups_forbidden() { return forbidden_from_now_on.load(std::memory_order_relaxed); }

bool any_opted_in() {
    if (setups_forbidden())
        return false;
    if (on_by_default)
        return true;
    for (int i = 0; i < rule_count; ++i)
        if (rules[i].lane == Rule::kOn)
            return true;
    return false;
}

bool assume_strict() { return strict; }
int64_t spin_budget() { return spin; }
void set_spin_budget(int64_t nanoseconds) { spin = nanoseconds; }

}  // namespace loopfast
