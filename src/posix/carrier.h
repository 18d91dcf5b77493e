// A process of ours that carries bytes between a connection which only the library can read and a socket of
// the kernel's, for a program that knows no ring: see replacement.h.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace loopfast {

/// One way of carrying: what was received from one side and not yet sent to the other.
struct Way {
    unsigned char bytes[16384];
    size_t begin = 0;
    size_t end = 0;
    bool ended = false;  ///< nothing more will come, and the other side was told

    bool empty() const { return begin == end; }
};

struct Ways {
    Way inward;   ///< from the connection
    Way outward;  ///< to it
};

/// As recv(2) with MSG_DONTWAIT, on whichever lane is due. @return bytes, 0 at the end, or -errno.
ssize_t receive_now(int fd, void* bytes, size_t size);

/// Starts the process; all signals are blocked. `ways` may hold what was taken out of the connection already.
/// It lives until both directions have ended, is nobody's child, and holds nothing of the program's but
/// `connection` and `kept`. @return false when it cannot be had.
bool start_carrier(int connection, int kept, Ways& ways);

}  // namespace loopfast
