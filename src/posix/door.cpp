// See door.h.
#include "posix/door.h"

#include <sys/epoll.h>

#include "base/clock.h"
#include "posix/posix.h"
#include "wait/epoll_set.h"

namespace loopfast {

LOOPFAST_PUBLIC int loopfast_door_look(int fd, int wanted) {
    const Stream* const stream = find_stream(fd);
    uint32_t ready;
    // The verdict on filters is heeded by sends and receives; who finds nothing to receive makes none.
    if (stream == nullptr || !stream->segment || !plain_readiness(*stream, static_cast<uint32_t>(wanted), ready))
        return -1;
    return static_cast<int>(ready) & wanted;
}

LOOPFAST_PUBLIC bool loopfast_door_spin(int set_fd, int64_t timeout, bool (*look)(void* context),
                                        void* context) {
    EpollSet* const set = find_set(set_fd);
    return set != nullptr && set->spin(timeout, look, context);
}

LOOPFAST_PUBLIC int loopfast_door_wait(int set_fd, epoll_event* events, int capacity, int64_t timeout) {
    EpollSet* const set = find_set(set_fd);
    if (set != nullptr)
        return set->wait(set_fd, events, capacity, timeout, nullptr, false);
    timespec storage;
    const int result = real::epoll_pwait2(set_fd, events, capacity, as_timespec(timeout, storage), nullptr);
    return result < 0 ? -errno : result;
}

LOOPFAST_PUBLIC int loopfast_door_glance(int set_fd, epoll_event* events, int capacity) {
    EpollSet* const set = find_set(set_fd);
    return set != nullptr ? set->glance(set_fd, events, capacity) : 0;
}

}  // namespace loopfast
