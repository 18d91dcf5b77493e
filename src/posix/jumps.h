// See jumps.cpp.
#pragma once

namespace loopfast {

/// Finds libc's functions. Called once, at load.
void resolve_jumps();

}  // namespace loopfast
