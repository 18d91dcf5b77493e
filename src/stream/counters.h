// Whether the kernel's own byte counts agree with ours. They disagree when somebody wrote or read behind
// our back (stdio, a raw system call): then this connection cannot be moved over.
#pragma once

#include "link/identity.h"
#include "stream/stream.h"

namespace loopfast {

/// All that the kernel sent on this socket went through us. Also pushes out what the kernel still holds
/// back (TCP_CORK, Nagle), since nothing will follow it on that lane.
bool sent_count_agrees(const Stream& stream, int fd);
/// All that was taken from this socket was taken through us.
bool received_count_agrees(const Stream& stream, int fd);
/// What both ends have sent and received is the same, as the kernel counts it for each. `before` was taken
/// before `peer` was looked up.
struct KernelCounts {
    uint64_t acknowledged;
    uint64_t received;
};
bool kernel_counts(int fd, KernelCounts& counts);
bool peers_count_agrees(const Stream& stream, int fd, const KernelCounts& before, const SocketFacts& peer);
/// The bytes that the kernel received; 0 also where it does not say.
uint64_t received_by_kernel(int fd);
/// The first `count` bytes that the kernel received have been taken out, by whomever.
bool received_at_least(int fd, uint64_t count);

/// A socket option is in use whose effect only the kernel can give, or it cannot be told.
bool needs_kernel(int fd);
/// Reads the options that the ring has to obey (timeouts, sizes, low-water mark, O_NONBLOCK). @return false
/// when the kernel does not tell them now.
bool read_options(Stream& stream, int fd);

}  // namespace loopfast
