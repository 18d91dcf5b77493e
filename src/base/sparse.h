// Mappings of which only a small part is ever used: segments, the family's arena, the tables. A program may
// have asked for whatever it maps from now on to be in memory at once (mlockall with MCL_FUTURE); of these
// mappings that would be 8 MiB for each end of a connection, where the kernel's own buffers cost it nothing.
#pragma once

#include <atomic>
#include <cstddef>

namespace loopfast {

/// What is mapped from now on is locked. Set by the calls that say so (posix/locked_memory.cpp), single steps
/// of their own: who maps at the same time may find either.
inline std::atomic<bool> future_is_locked{false};

/// Maps `size` bytes to be read and written, which are in no core dump: the kernel's buffers and tables are
/// in none, and ours would make it a large one. Where the program has locked what it maps, a page is in
/// memory (and stays there) once it has been touched, not before.
/// @param place   where, replacing in one step what is mapped there, or nullptr
/// @param flags   as for mmap(2), without MAP_FIXED
/// @return the address, or nullptr: then what was at `place` is as it was, or gone (never half of either)
void* map_sparse(void* place, size_t size, int flags, int fd);

}  // namespace loopfast
