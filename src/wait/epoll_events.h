// The data of events in a hidden epoll set, and the mark of a kick in the kernel's.
#pragma once

#include <sys/epoll.h>

#include <cstdint>

namespace loopfast {

constexpr uint64_t kOrdinaryEvent = ~uint64_t{0};  ///< the program's own set has something
constexpr uint64_t kKickEvent = ~uint64_t{0} - 1;  ///< look again

/// A link's or a kernel socket's event: the descriptor under which the stream is registered.
inline uint64_t hidden_data(int fd, bool kernel) {
    return uint64_t{static_cast<uint32_t>(fd)} << 1 | (kernel ? 1 : 0);
}

/// Drawn at random once per process: the data of the one event that we ever put into a program's own set.
uint64_t kernel_kick_data();
/// Takes it out of what the kernel reported. @return how many events are left, or `count` below zero.
int without_kicks(epoll_event* events, int count);

}  // namespace loopfast
