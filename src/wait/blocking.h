// Blocking send and receive: attempts of the stream layer with waits between them, under the rules of the
// socket interface for timeouts, signals, low-water marks and partial transfers.
#pragma once

#include "stream/stream.h"
#include "wait/caller.h"

namespace loopfast {

// All of them: -ERESTART where a handler ran after which the call goes on, and the descriptor is not the
// stream's any more. The kernel would begin the call anew.

/// As recv(2) with `flags`; `to` null drops the bytes (MSG_TRUNC). @return bytes, or -errno.
long receive(Stream& stream, int fd, Buffers* to, size_t size, int flags);

/// As send(2) with `flags`. @return bytes, or -errno.
long send(Stream& stream, int fd, const Buffers& from, size_t size, int flags);

/// The same as a step of a call that has several, or that has waited already: `call` holds the file, as the
/// kernel does from a call's first step to its last, whatever becomes of the number meanwhile.
long receive(Stream& stream, const Caller& call, Buffers* to, size_t size, int flags);
long send(Stream& stream, const Caller& call, const Buffers& from, size_t size, int flags);

/// Waits, as a send does that finds the stream full, until there is room or the stream has ended. @return 0,
/// or -errno: -EAGAIN where a send would not wait.
long await_room(Stream& stream, const Caller& call);

}  // namespace loopfast
