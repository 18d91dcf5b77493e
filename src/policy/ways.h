// Whether addresses, routes or routing rules have changed, which may lead what is sent on a connection away
// from lo, or nowhere: what streams were told of their way holds until then.
#pragma once

#include <cstdint>

namespace loopfast {

/// Whether there was a change since the last time. One thread at a time; `now` as now_ns() says.
bool ways_changed(int64_t now);

/// The process has moved to another network namespace.
void forget_ways();

}  // namespace loopfast
