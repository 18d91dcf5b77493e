// See config.h. Every mistake of a file is collected before any is reported, so that one run of the
// command names them all.
#include "cli/config.h"

#include <arpa/inet.h>
#include <pwd.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

// The header-only form, since only this file needs it and a shared library would have to be installed.
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include "cli/suggestion.h"
#include "policy/policy.h"

namespace loopfast::cli {

namespace {

// What the library has room for (src/policy/policy.cpp), less one for the file's own defaults.
constexpr size_t kMostRules = 63;
constexpr int64_t kMostThreshold = 999'999'999'999'999'999;

/// Reads the tables of one file and keeps the mistakes it meets.
class Reader {
public:
    explicit Reader(const std::string& file) : file_(file) {}

    Config read(const toml::table& root) {
        Config config;
        for (const auto& [key, value] : root) {
            if (key == "spin")
                config.spin = spin(value, "spin");
            else if (key == "threshold")
                config.threshold = threshold(value, "threshold");
            else if (key == "assume")
                config.assume = one_of(value, "assume", {"fuse", "strict"});
            else if (key == "rule")
                rules(value, config);
            else
                unknown(key, {"spin", "threshold", "assume", "rule"}, "at the top");
        }
        if (config.rules.size() > kMostRules)
            mistake(root.source(),
                    fmt::format("{} rules; at most {} are possible", config.rules.size(), kMostRules));
        return config;
    }

    void mistake(const toml::source_region& where, const std::string& text) {
        mistakes_.push_back({where.begin.line, where.begin.column, text});
    }

    /// Ends the reading if there was a mistake.
    void finish() {
        if (mistakes_.empty())
            return;
        std::stable_sort(mistakes_.begin(), mistakes_.end(), [](const Mistake& a, const Mistake& b) {
            return std::tie(a.line, a.column) < std::tie(b.line, b.column);
        });
        std::string all;
        for (const Mistake& mistake : mistakes_)
            all += fmt::format("{}{}:{}:{}: {}", all.empty() ? "" : "\nloopfast: ", file_, mistake.line,
                               mistake.column, mistake.text);
        throw Failure(kUsage, all);
    }

private:
    struct Mistake {
        unsigned line;
        unsigned column;
        std::string text;
    };

    /// What a value is, for a message: a string in quotes, a number, or its kind.
    static std::string describe(const toml::node& value) {
        if (const auto* text = value.as_string())
            return fmt::format("\"{}\"", text->get());
        if (const auto* number = value.as_integer())
            return fmt::format("{}", number->get());
        switch (value.type()) {
        case toml::node_type::boolean:
            return value.value_or(false) ? "true" : "false";
        case toml::node_type::floating_point:
            return fmt::format("{}", value.value_or(0.0));
        case toml::node_type::table:
            return "a table";
        case toml::node_type::array:
            return "an array";
        default:
            return "a date or time";
        }
    }

    void wrong(const toml::node& value, std::string_view name, const std::string& expected) {
        mistake(value.source(), fmt::format("{} is {}; expected {}", name, describe(value), expected));
    }

    void unknown(const toml::key& key, const std::vector<std::string>& known, const char* where) {
        mistake(key.source(), fmt::format("unknown key '{}' {}; expected one of {}{}", key.str(), where,
                                          fmt::join(known, ", "), did_you_mean(key.str(), known)));
    }

    std::optional<std::string> spin(const toml::node& value, const char* name) {
        std::string text;
        if (const auto* word = value.as_string())
            text = word->get();
        else if (const auto* number = value.as_integer())
            text = std::to_string(number->get());
        if (is_spin(text))
            return text;
        wrong(value, name, kSpinExpected);
        return std::nullopt;
    }

    std::optional<uint64_t> threshold(const toml::node& value, const char* name) {
        const auto* number = value.as_integer();
        if (number != nullptr && number->get() >= 0 && number->get() <= kMostThreshold)
            return static_cast<uint64_t>(number->get());
        wrong(value, name, kThresholdExpected);
        return std::nullopt;
    }

    void rules(const toml::node& value, Config& config) {
        const auto* array = value.as_array();
        if (array == nullptr) {
            wrong(value, "rule", "[[rule]], with double brackets");
            return;
        }
        for (const toml::node& element : *array) {
            if (const auto* table = element.as_table())
                config.rules.push_back(rule(*table));
            else
                wrong(element, "rule", "[[rule]], with double brackets");
        }
    }

    Rule rule(const toml::table& table) {
        Rule rule;
        const toml::node* spin_value = nullptr;
        for (const auto& [key, value] : table) {
            if (key == "program")
                rule.program = program(value);
            else if (key == "port")
                rule.port = port(value);
            else if (key == "user")
                rule.user = user(value);
            else if (key == "address")
                rule.address = address(value);
            else if (key == "lane")
                rule.lane = one_of(value, "lane", {"on", "off"});
            else if (key == "spin")
                rule.spin = spin(*(spin_value = &value), "spin");
            else if (key == "threshold")
                rule.threshold = threshold(value, "threshold");
            else
                unknown(key, {"program", "port", "user", "address", "lane", "spin", "threshold"},
                        "in a rule");
        }
        // A rule that decides nothing is a rule that somebody forgot to finish.
        if (!table.contains("lane") && !table.contains("spin") && !table.contains("threshold"))
            mistake(table.source(), "a rule that decides nothing; expected lane, spin or threshold in it");
        for (const char* const narrower : {"port", "user", "address"})
            if (spin_value != nullptr && table.contains(narrower))
                mistake(
                    spin_value->source(),
                    fmt::format("spin in a rule with {0} {1}; a process spins or does not, whatever the {1}: "
                                "expected it in a rule without one",
                                narrower[0] == 'p'   ? "a"
                                : narrower[0] == 'u' ? "a"
                                                     : "an",
                                narrower));
        return rule;
    }

    std::optional<std::string> program(const toml::node& value) {
        const auto* text = value.as_string();
        if (text != nullptr && !text->get().empty() && text->get().find_first_of(":;/") == std::string::npos)
            return text->get();
        wrong(value, "program", "the base name of a program, without '/', ':' or ';', or \"*\"");
        return std::nullopt;
    }

    std::optional<uint16_t> port(const toml::node& value) {
        const auto* number = value.as_integer();
        if (number != nullptr && number->get() >= 1 && number->get() <= 65535)
            return static_cast<uint16_t>(number->get());
        if (const auto* text = value.as_string(); text != nullptr && text->get() == "*")
            return std::nullopt;
        wrong(value, "port", "a number from 1 to 65535, or \"*\"");
        return std::nullopt;
    }

    std::optional<std::string> one_of(const toml::node& value, const char* name,
                                      const std::array<std::string, 2>& words) {
        const auto* text = value.as_string();
        if (text != nullptr && (text->get() == words[0] || text->get() == words[1]))
            return text->get();
        wrong(value, name, fmt::format("\"{}\" or \"{}\"", words[0], words[1]));
        return std::nullopt;
    }

    std::optional<uint32_t> user(const toml::node& value) {
        if (const auto* number = value.as_integer();
            number != nullptr && number->get() >= 0 && number->get() < UINT32_MAX)
            return static_cast<uint32_t>(number->get());
        if (const auto* text = value.as_string())
            if (const passwd* const entry = getpwnam(text->get().c_str()))
                return entry->pw_uid;
        wrong(value, "user", "the name of a user of this host, or a number");
        return std::nullopt;
    }

    /// An address, or a prefix of it: 127.0.0.1, 10.0.0.0/8, ::1.
    std::optional<std::string> address(const toml::node& value) {
        constexpr const char* kExpected = "an IPv4 or IPv6 address, with /BITS or without";
        const auto* text = value.as_string();
        if (text == nullptr) {
            wrong(value, "address", kExpected);
            return std::nullopt;
        }
        const size_t slash = text->get().find('/');
        const std::string plain = text->get().substr(0, slash);
        std::array<unsigned char, 16> bytes{};
        const bool v4 = inet_pton(AF_INET, plain.c_str(), bytes.data()) == 1;
        const bool v6 = !v4 && inet_pton(AF_INET6, plain.c_str(), bytes.data()) == 1;
        const unsigned long most = v4 ? 32 : 128;
        unsigned long bits = most;
        char* end = nullptr;
        if (slash != std::string::npos)
            bits = strtoul(text->get().c_str() + slash + 1, &end, 10);
        const bool good = slash == std::string::npos ||
                          (isdigit(static_cast<unsigned char>(text->get()[slash + 1])) != 0 && *end == 0);
        if ((!v4 && !v6) || !good || bits > most) {
            wrong(value, "address", kExpected);
            return std::nullopt;
        }
        std::string encoded = v4 ? "4/" : "6/";
        for (size_t i = 0; i < (v4 ? 4 : 16); ++i)
            encoded += fmt::format("{:02x}", bytes.at(i));
        return fmt::format("{}/{}", encoded, bits);
    }

    const std::string& file_;
    std::vector<Mistake> mistakes_;
};

}  // namespace

Config parse_config(std::string_view text, const std::string& file) {
    toml::table root;
    try {
        root = toml::parse(text, file);
    } catch (const toml::parse_error& error) {
        const auto& where = error.source().begin;
        throw Failure(kUsage, fmt::format("{}:{}:{}: not TOML: {}", file, where.line, where.column,
                                          error.description()));
    }
    Reader reader(file);
    Config config = reader.read(root);
    reader.finish();
    return config;
}

Config read_config(const std::string& file) {
    const auto unreadable = [&] {
        return Failure(kUsage,
                       fmt::format("{}: the configuration file cannot be read: {}", file, strerror(errno)));
    };
    struct stat status {};
    if (stat(file.c_str(), &status) != 0)
        throw unreadable();
    if (S_ISDIR(status.st_mode))
        throw Failure(kUsage, fmt::format("{}: a directory; expected a configuration file", file));
    // A pipe may have no writer, and a device no end. /dev/null is what one names to have no configuration.
    if (!S_ISREG(status.st_mode) && file != "/dev/null")
        throw Failure(kUsage,
                      fmt::format("{}: a pipe, a device or a socket; expected a configuration file", file));
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
        throw unreadable();
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    return parse_config(text, file);
}

std::string compile_rules(const Config& config, bool leave_out_spin, bool leave_out_threshold) {
    std::string all;
    const auto add = [&](const Rule& rule) {
        const bool spin = rule.spin && !leave_out_spin;
        const bool threshold = rule.threshold && !leave_out_threshold;
        if (!rule.lane && !spin && !threshold)
            return;
        all += fmt::format("{}{}:{}:{}:{}:{}", all.empty() ? "" : ";", rule.program.value_or("*"),
                           rule.port ? std::to_string(*rule.port) : "*", rule.lane.value_or("-"),
                           spin ? *rule.spin : "-", threshold ? std::to_string(*rule.threshold) : "-");
        if (rule.user || rule.address)
            all += fmt::format(":{}:{}", rule.user ? std::to_string(*rule.user) : "*",
                               rule.address.value_or("*"));
    };
    for (const Rule& rule : config.rules)
        add(rule);
    // The file's own defaults come last, where every rule has had its say.
    Rule defaults;
    defaults.spin = config.spin;
    defaults.threshold = config.threshold;
    add(defaults);
    return all;
}

std::string default_config_file() {
    std::vector<std::string> candidates;
    const char* directory = getenv("XDG_CONFIG_HOME");
    const char* home = getenv("HOME");
    if (directory != nullptr && directory[0] == '/')
        candidates.push_back(std::string(directory) + "/loopfast/loopfast.toml");
    else if (home != nullptr && home[0] == '/')
        candidates.push_back(std::string(home) + "/.config/loopfast/loopfast.toml");
    candidates.emplace_back("/etc/loopfast.toml");
    for (const std::string& candidate : candidates) {
        struct stat status {};
        if (stat(candidate.c_str(), &status) == 0)
            return candidate;
    }
    return "";
}

bool is_spin(std::string_view text) {
    return !text.empty() && text.size() < 100 && parse_spin(text.data(), static_cast<int>(text.size())) >= 0;
}

bool is_threshold(std::string_view text) {
    return !text.empty() && text.size() <= 18 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

namespace {

bool all_of(std::string_view text, std::string_view allowed) {
    return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

bool is_number(std::string_view text, uint64_t most) {
    return is_threshold(text) && std::stoull(std::string(text)) <= most;
}

/// 4/HEX/BITS or 6/HEX/BITS.
bool is_address(std::string_view text) {
    const bool v4 = text.substr(0, 2) == "4/";
    const size_t digits = v4 ? 8 : 32;
    if ((!v4 && text.substr(0, 2) != "6/") || text.size() < digits + 4 || text[digits + 2] != '/')
        return false;
    return all_of(text.substr(2, digits), "0123456789abcdef") &&
           is_number(text.substr(digits + 3), v4 ? 32 : 128);
}

/// As parse_rule() in policy/policy.cpp has it.
bool is_rule(std::string_view text) {
    std::vector<std::string_view> fields;
    for (size_t begin = 0; begin <= text.size();) {
        const size_t end = std::min(text.find(':', begin), text.size());
        fields.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    if (fields.size() < 5 || fields.size() > 7)
        return false;
    fields.resize(7, "*");
    return !fields[0].empty() && (fields[1] == "*" || is_number(fields[1], 65535)) &&
           (fields[2] == "on" || fields[2] == "off" || fields[2] == "-") &&
           (fields[3] == "-" || is_spin(fields[3])) && (fields[4] == "-" || is_threshold(fields[4])) &&
           (fields[5] == "*" || is_number(fields[5], UINT32_MAX)) &&
           (fields[6] == "*" || is_address(fields[6]));
}

}  // namespace

std::string wrong_rule(std::string_view text) {
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find(';', begin), text.size());
        const std::string_view rule = text.substr(begin, end - begin);
        if (!is_rule(rule))
            return rule.empty() ? ";" : std::string(rule);
        begin = end + 1;
    }
    return "";
}

}  // namespace loopfast::cli
