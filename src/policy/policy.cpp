// See policy.h. The strings stay where they are, in the environment block, and are copied into fixed
// arrays: a program may change its environment later.
#include "policy/policy.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>

#include "base/cpu.h"
#include "base/log.h"
#include "base/syscall.h"

extern char* program_invocation_short_name;

namespace loopfast {

namespace {

constexpr int kMostRules = 64;

struct Rule {
    bool any_port;
    uint16_t port;
    bool any_user;
    uint64_t user;
    uint16_t family;  ///< AF_INET or AF_INET6; 0: any address
    unsigned char address[16];
    unsigned char bits;
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
bool rings = false;
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

int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/// "4/7f000000/8": the family, all of the address in hexadecimal, how many of its bits count. Text of another
/// form is refused, since a rule that is taken for a wider one than it is would be a mistake.
bool parse_address(const char* text, int size, Rule& rule) {
    const int bytes = size > 2 && text[0] == '4' ? 4 : size > 2 && text[0] == '6' ? 16 : 0;
    uint64_t bits = 0;
    if (bytes == 0 || text[1] != '/' || size < 4 + 2 * bytes || text[2 + 2 * bytes] != '/' ||
        !parse_number(text + 3 + 2 * bytes, size - 3 - 2 * bytes, bits) ||
        bits > 8U * static_cast<unsigned>(bytes))
        return false;
    for (int i = 0; i < bytes; ++i) {
        const int high = digit(text[2 + 2 * i]);
        const int low = digit(text[3 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        rule.address[i] = static_cast<unsigned char>(high << 4 | low);
    }
    rule.family = bytes == 4 ? AF_INET : AF_INET6;
    rule.bits = static_cast<unsigned char>(bits);
    return true;
}

bool in_prefix(const Rule& rule, const unsigned char* address) {
    const int whole = rule.bits / 8;
    const auto mask = static_cast<unsigned char>(0xff00U >> (rule.bits % 8));
    return memcmp(rule.address, address, static_cast<size_t>(whole)) == 0 &&
           (rule.bits % 8 == 0 || ((rule.address[whole] ^ address[whole]) & mask) == 0);
}

/// One rule: five to seven fields. A malformed one is dropped: the command line has checked them before, and
/// a library inside a server has nobody to complain to but the log.
void parse_rule(const char* text, int size, const char* program, bool& spin_set) {
    constexpr int kMostFields = 7;
    Field fields[kMostFields];
    int count = 0;
    int start = 0;
    for (int i = 0; i <= size; ++i) {
        if (i < size && text[i] != ':')
            continue;
        if (count == kMostFields)
            return;
        fields[count++] = {text + start, i - start};
        start = i + 1;
    }
    if (count < 5)
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
    rule.any_user = count < 6 || equals(fields[5].text, fields[5].size, "*");
    if (!rule.any_user && !parse_number(fields[5].text, fields[5].size, rule.user))
        return;
    if (count == 7 && !equals(fields[6].text, fields[6].size, "*") &&
        !parse_address(fields[6].text, fields[6].size, rule))
        return;
    rule.lane = equals(fields[2].text, fields[2].size, "on")    ? Rule::kOn
                : equals(fields[2].text, fields[2].size, "off") ? Rule::kOff
                                                                : Rule::kUnsaid;
    // Spinning is a matter of the process, not of a port.
    if (!spin_set && rule.any_port && rule.any_user && rule.family == 0) {
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
    value = getenv("LOOPFAST_IO_URING");
    rings = value != nullptr && strcmp(value, "allow") == 0;
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
    LOOPFAST_LOG("loaded in %s: %s, threshold %llu, spin %lld ns", program_invocation_short_name,
                 on_by_default ? "on" : "off", static_cast<unsigned long long>(default_threshold),
                 static_cast<long long>(spin));
}

void settle_policy() {
    // A process that is bound to one processor may well spin: its peer runs on another one, or tells us that
    // it does not (peer_on_this_cpu). On a machine with one there is nobody to spin for.
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        spin = kSpinOff;
}

Decision decide(uint16_t port, int family, const unsigned char* address) {
    Decision decision{on_by_default, false, default_threshold};
    bool lane_said = false;
    bool threshold_said = false;
    for (int i = 0; i < rule_count; ++i) {
        const Rule& rule = rules[i];
        if (!rule.any_port && rule.port != port)
            continue;
        // Asked each time: servers begin as root and go on as somebody else.
        if (!rule.any_user && rule.user != static_cast<uint64_t>(sys::call(SYS_geteuid)))
            continue;
        if (rule.family != 0 && (rule.family != family || address == nullptr || !in_prefix(rule, address)))
            continue;
        if (!lane_said && rule.lane != Rule::kUnsaid) {
            decision.on = rule.lane == Rule::kOn;
            decision.forbidden = rule.lane == Rule::kOff;
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
        if (!rules[i].any_port || rules[i].family != 0)
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
bool rings_allowed() { return rings; }

int64_t spin_budget() { return spin; }
void set_spin_budget(int64_t nanoseconds) { spin = nanoseconds; }

}  // namespace loopfast
