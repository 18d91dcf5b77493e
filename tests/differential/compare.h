// Running the same cases in several lanes and comparing the traces.
#pragma once

#include <string>
#include <vector>

#include "pair.h"

namespace differential {

struct Comparison {
    Setup setup;
    std::vector<std::string> lanes;
    std::string program;  ///< this program, to be executed again for each lane
    std::string library;
    std::string leaving_library;  ///< the same, for lanes left:...
    bool whole_traces = false;
    bool all = false;  ///< also what is known to hang
};

/// Runs the cases in all lanes, prints what differs and how to run just that. @return 0 or 1.
int compare(const Comparison& comparison, const std::vector<std::string>& cases);

/// For one random case that differs: drops steps as long as it still does. @return 0 or 1.
int shrink(const Comparison& comparison, const std::vector<std::string>& cases);

}  // namespace differential
