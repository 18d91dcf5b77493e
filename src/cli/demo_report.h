// What `loopfast demo` found, as a table and as JSON: medians over the rounds and their ratio to the
// kernel lane's.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace loopfast::cli {

/// One way of doing one piece of work, and what each round of it gave.
struct Series {
    std::string work;         ///< "pingpong" or "stream"
    std::string lane;         ///< "kernel" or "ring"
    std::string spin;         ///< "auto" or "off"; "-" on the kernel lane, which knows no spinning
    std::vector<double> p50;  ///< nanoseconds, ping-pong only
    std::vector<double> p99;  ///< nanoseconds, ping-pong only
    std::vector<double> bytes_per_second;  ///< stream only
};

double median(std::vector<double> values);

/// The kernel lane's series of a work must come before the others of it.
std::string demo_table(const std::vector<Series>& all);
nlohmann::json demo_json(const std::vector<Series>& all);

}  // namespace loopfast::cli
