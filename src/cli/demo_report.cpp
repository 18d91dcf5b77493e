// See demo_report.h.
#include "cli/demo_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/table.h"

namespace loopfast::cli {

namespace {

/// The medians of one series, and how many times better than the kernel lane's they are.
struct Medians {
    double p50 = 0, p99 = 0, bytes_per_second = 0;
    double p50_ratio = 0, p99_ratio = 0, throughput_ratio = 0;
};

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

Medians medians(const Series& series, const std::vector<Series>& all) {
    const auto kernel = std::find_if(all.begin(), all.end(), [&](const Series& other) {
        return other.work == series.work && other.lane == "kernel";
    });
    Medians result{.p50 = median(series.p50),
                   .p99 = median(series.p99),
                   .bytes_per_second = median(series.bytes_per_second)};
    if (kernel != all.end()) {
        result.p50_ratio = ratio(median(kernel->p50), result.p50);
        result.p99_ratio = ratio(median(kernel->p99), result.p99);
        result.throughput_ratio = ratio(result.bytes_per_second, median(kernel->bytes_per_second));
    }
    return result;
}

const char* title(const std::string& work) {
    return work == "stream" ? "one stream, 64 KiB writes" : "64 B ping-pong, blocking";
}

std::string microseconds(double nanoseconds) { return fmt::format("{:.2f} us", nanoseconds / 1000); }

}  // namespace

double median(std::vector<double> values) {
    if (values.empty())
        return 0;
    std::sort(values.begin(), values.end());
    const size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string demo_table(const std::vector<Series>& all) {
    std::vector<std::vector<std::string>> rows;
    for (const Series& series : all) {
        const Medians m = medians(series, all);
        const bool first = rows.empty() || series.lane == "kernel";
        std::vector<std::string> row{first ? title(series.work) : "", series.lane, series.spin};
        if (series.work == "stream") {
            row.insert(row.end(), {fmt::format("{:.2f} GB/s", m.bytes_per_second / 1e9),
                                   fmt::format("{:.1f}x", m.throughput_ratio), "", ""});
        } else {
            row.insert(row.end(), {microseconds(m.p50), fmt::format("{:.1f}x", m.p50_ratio),
                                   microseconds(m.p99), fmt::format("{:.1f}x", m.p99_ratio)});
        }
        rows.push_back(row);
    }
    return format_table(
        {{"work"}, {"lane"}, {"spin"}, {"median", true}, {"ratio", true}, {"p99", true}, {"ratio", true}},
        rows);
}

nlohmann::json demo_json(const std::vector<Series>& all) {
    nlohmann::json results = nlohmann::json::array();
    for (const Series& series : all) {
        const Medians m = medians(series, all);
        nlohmann::json one{{"work", series.work}, {"lane", series.lane}};
        one["spin"] = series.spin == "-" ? nlohmann::json() : nlohmann::json(series.spin);
        if (series.work == "stream") {
            one["bytes_per_second"] = {{"median", m.bytes_per_second}, {"rounds", series.bytes_per_second}};
            one["ratio"] = {{"bytes_per_second", m.throughput_ratio}};
        } else {
            one["p50_ns"] = {{"median", m.p50}, {"rounds", series.p50}};
            one["p99_ns"] = {{"median", m.p99}, {"rounds", series.p99}};
            one["ratio"] = {{"p50", m.p50_ratio}, {"p99", m.p99_ratio}};
        }
        results.push_back(one);
    }
    return results;
}

}  // namespace loopfast::cli
