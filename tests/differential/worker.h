// A worker: the program executed once for a lane, with that lane's environment. It runs cases, each in a
// process of its own, and writes their traces.
#pragma once

#include <string>
#include <vector>

#include "pair.h"

namespace differential {

/// Parses a lane's name; an empty name in the result means that there is no such lane.
Lane parse_lane(const std::string& name);

/// Runs the named cases ("name" or "name@parameter") and writes to `out`, for each:
///     =case NAME
///     lines of the trace; # remarks, @ operations begun, ! failures of the harness itself
///     =end ok | hang | signal N | status N
int work(const Lane& lane, const Setup& setup, const std::vector<std::string>& cases, int out);

}  // namespace differential
