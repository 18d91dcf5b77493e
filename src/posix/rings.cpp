// See rings.h. (A program that makes its system calls with instructions of its own, as liburing does, is not
// seen here: it must be started with loopfast off.)
#include "posix/rings.h"

#include <atomic>

#include "policy/policy.h"
#include "posix/posix.h"

namespace loopfast {

namespace {

std::atomic<bool> in_use{false};

bool any_stream() {
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd))
        if (find_stream(fd) != nullptr)
            return true;
    return false;
}

}  // namespace

bool ring_in_use() { return in_use.load(std::memory_order_relaxed); }

bool ring_refused() {
    const bool concerned = any_opted_in() || any_stream();
    if (concerned && !rings_allowed())
        return true;
    // Connections that begin from now on see the mark, see begin() in sockets.cpp. Relaxed: what another
    // thread does with the ring's number it does after it has got it from this one.
    in_use.store(true, std::memory_order_relaxed);
    for (int fd = next_entry(-1); concerned && fd >= 0; fd = next_entry(fd))
        if (Stream* const stream = find_stream(fd))
            part_with(*stream, fd, Reason::kOption);
    return false;
}

}  // namespace loopfast
