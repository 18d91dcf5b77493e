// poll and select over streams and ordinary descriptors mixed.
#pragma once

#include <poll.h>
#include <signal.h>

#include <cstdint>

namespace loopfast {

/// True when one of the descriptors is a stream with a segment, or an epoll set with such streams: then
/// poll_streams must be used instead of the kernel's call.
bool poll_needs_us(const pollfd* fds, nfds_t count);

/// As ppoll(2), timeout in nanoseconds. @return the number of descriptors with events, or -errno.
int poll_streams(pollfd* fds, nfds_t count, int64_t timeout, const sigset_t* mask);

/// Calls `wait(argument)`, a kernel poll or select over these descriptors; while it lasts none of the streams
/// among them is fused. `moved` becomes true, and `wait` is not called, when one is fused or being fused.
int poll_kernel(pollfd* fds, nfds_t count, bool& moved, int (*wait)(void*), void* argument);

}  // namespace loopfast
