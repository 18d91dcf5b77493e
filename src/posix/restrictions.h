// Back to the kernel lane for good (restrictions.cpp), and where a descriptor table parts from its memory
// (clones.cpp).
#pragma once

#include <cstdint>

namespace loopfast {

/// Every connection of this process goes back to the kernel lane, and nothing is set up any more.
void retreat();

/// The process has one thread, as far as that can be asked. (Ours counts, while it is there.)
bool is_alone();

/// Before a call after which one thread has a descriptor table of its own: with other threads, that is a
/// reason to retreat.
void before_tables_part();

/// Before a clone with these flags.
void before_clone(uint64_t flags);

}  // namespace loopfast
