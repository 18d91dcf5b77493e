// A fresh socket in a descriptor's place, for the case in which a stream cannot leave the ring: it has unread
// bytes in the ring whose sender closed, died, or left the ring itself, so nobody can send them again over
// the kernel lane, and the descriptor has to go to somebody who knows no ring.
#pragma once

#include "stream/stream.h"

namespace loopfast {

/// Puts one end of a new TCP connection in the place of every descriptor of this process that means `stream`.
/// Out of it come the unread bytes, then what the old connection brings. If that one has ended and its bytes
/// fit into the kernel's buffers that is all; else a process of ours carries bytes between the two until both
/// have ended. What the program can see of this: the addresses are others. @return false when it cannot be
/// had.
bool replace_descriptor(Stream& stream, int fd);

}  // namespace loopfast
