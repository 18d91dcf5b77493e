// load.h: what the servers that `load` talks to must know.
#pragma once

#include <cstddef>

namespace bench {

constexpr size_t request_size = 64;
/// First byte of a request that asks the server to check its own lane.
constexpr char check_lane = 'L';

}  // namespace bench
