// See door.h.
#include "posix/door.h"

#include <limits.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "posix/posix.h"
#include "wait/epoll_set.h"

namespace loopfast {

LOOPFAST_PUBLIC __attribute__((flatten)) int loopfast_door_look(int fd, int wanted) {
    const Stream* const stream = find_stream(fd);
    uint32_t ready;
    // The verdict on filters is heeded by sends and receives; who finds nothing to receive makes none.
    if (stream == nullptr || !stream->segment ||
        !plain_readiness(*stream, static_cast<uint32_t>(wanted), ready))
        return -1;
    return static_cast<int>(ready) & wanted;
}

namespace {

/// The most one call moves, as in the kernel.
iovec part_of(const void* bytes, size_t size) {
    constexpr size_t kMost = 0x7ffff000;
    return {const_cast<void*>(bytes), size < kMost ? size : kMost};
}

}  // namespace

LOOPFAST_PUBLIC long loopfast_door_receive(int fd, void* bytes, size_t size) {
    Stream* const stream = fused_stream_of(find_stream(fd));
    if (stream == nullptr)
        return LONG_MIN;
    const iovec part = part_of(bytes, size);
    Buffers to(&part, 1);
    return receive_some(*stream, fd, &to, part.iov_len, MSG_DONTWAIT);
}

LOOPFAST_PUBLIC long loopfast_door_send(int fd, const void* bytes, size_t size) {
    Stream* const stream = fused_stream_of(find_stream(fd));
    if (stream == nullptr)
        return LONG_MIN;
    const iovec part = part_of(bytes, size);
    Buffers rest(&part, 1);
    size_t done = 0;
    for (;;) {
        const long result = send_some(*stream, fd, rest, part.iov_len - done,
                                      MSG_DONTWAIT | MSG_NOSIGNAL | (done != 0 ? kContinued : 0));
        if (result < 0)
            return done != 0 ? static_cast<long>(done) : result;
        done += static_cast<size_t>(result);
        if (done == part.iov_len) [[likely]]
            return static_cast<long>(done);
        rest.skip(static_cast<size_t>(result));
    }
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
