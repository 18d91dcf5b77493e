// See status_report.h.
#include "cli/status_report.h"

#include <array>
#include <set>

#include <fmt/format.h>

#include "cli/table.h"

namespace loopfast::cli {

namespace {

/// Bytes in three figures: 999 B, 1.21 MB.
std::string short_bytes(uint64_t bytes) {
    static constexpr std::array<const char*, 6> kUnits = {"B", "kB", "MB", "GB", "TB", "PB"};
    auto value = static_cast<double>(bytes);
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < kUnits.size()) {
        value /= 1000;
        ++unit;
    }
    if (unit == 0)
        return fmt::format("{} B", bytes);
    return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, kUnits.at(unit));
}

}  // namespace

std::string status_table(const std::vector<ProcessStatus>& processes) {
    std::vector<std::vector<std::string>> rows;
    for (const ProcessStatus& process : processes) {
        const auto pid = std::to_string(process.pid);
        // A process without connections is shown too: that it has the library is news.
        if (process.connections.empty())
            rows.push_back(
                {pid, process.program, "-", "-", "-", "-", "-", process.note, "", "", "", "", "", ""});
        for (const ConnectionStatus& c : process.connections)
            rows.push_back({pid, process.program, std::to_string(c.fd), c.local, c.peer, c.role, c.lane,
                            c.reason, short_bytes(c.bytes_sent), short_bytes(c.bytes_received),
                            std::to_string(c.messages_sent), std::to_string(c.messages_received),
                            std::to_string(c.bells), std::to_string(c.sleeps)});
    }
    std::string table = format_table({{"PID", true},
                                      {"PROGRAM"},
                                      {"FD", true},
                                      {"LOCAL"},
                                      {"PEER"},
                                      {"ROLE"},
                                      {"LANE"},
                                      {"REASON"},
                                      {"SENT", true},
                                      {"RECEIVED", true},
                                      {"MSGS-OUT", true},
                                      {"MSGS-IN", true},
                                      {"BELLS", true},
                                      {"SLEEPS", true}},
                                     rows);
    // What a reason stands for, each once: it is too long for a column.
    std::set<std::string> objections;
    for (const ProcessStatus& process : processes)
        for (const ConnectionStatus& c : process.connections)
            if (!c.objection.empty())
                objections.insert(c.objection.rfind(c.reason + ":", 0) == 0
                                      ? c.objection + "\n"
                                      : fmt::format("{}: {}\n", c.reason, c.objection));
    for (const std::string& line : objections)
        table += line;
    return table;
}

nlohmann::json status_json(const std::vector<ProcessStatus>& processes) {
    nlohmann::json all = nlohmann::json::array();
    for (const ProcessStatus& process : processes) {
        nlohmann::json connections = nlohmann::json::array();
        for (const ConnectionStatus& c : process.connections) {
            nlohmann::json one{{"fd", c.fd},
                               {"local", c.local},
                               {"peer", c.peer},
                               {"role", c.role},
                               {"lane", c.lane},
                               {"bytes_sent", c.bytes_sent},
                               {"bytes_received", c.bytes_received},
                               {"messages_sent", c.messages_sent},
                               {"messages_received", c.messages_received},
                               {"bells", c.bells},
                               {"sleeps", c.sleeps}};
            one["objection"] = c.objection.empty() ? nlohmann::json() : nlohmann::json(c.objection);
            one["reason"] = c.reason.empty() ? nlohmann::json() : nlohmann::json(c.reason);
            connections.push_back(one);
        }
        all.push_back({{"pid", process.pid},
                       {"program", process.program},
                       {"note", process.note.empty() ? nlohmann::json() : nlohmann::json(process.note)},
                       {"connections", connections}});
    }
    return all;
}

}  // namespace loopfast::cli
