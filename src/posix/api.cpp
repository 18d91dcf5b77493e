// The C functions of loopfast.h.
#include "loopfast.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/hidden.h"
#include "policy/policy.h"
#include "posix/posix.h"
#include "wait/chance.h"
#include "wait/early_sets.h"

namespace loopfast {

namespace {

int option(int fd, int name, int& value) {
    socklen_t size = sizeof value;
    return sys::getsockopt(fd, SOL_SOCKET, name, &value, &size);
}

/// 0 for a TCP socket, else EBADF, ENOTSOCK or EOPNOTSUPP, negative.
int judge(int fd) {
    int value = 0;
    if (is_hidden(fd))
        return -EBADF;
    const int result = option(fd, SO_PROTOCOL, value);
    if (result < 0)
        return result;
    if (value != IPPROTO_TCP)
        return -EOPNOTSUPP;
    if (option(fd, SO_DOMAIN, value) < 0 || (value != AF_INET && value != AF_INET6))
        return -EOPNOTSUPP;
    return 0;
}

}  // namespace

LOOPFAST_PUBLIC int loopfast_enable(int fd, int on) {
    const int judged = judge(fd);
    if (judged < 0)
        return returned<int>(judged);
    Stream* stream = find_stream(fd);
    if (stream == nullptr) {
        if (on == 0 || setups_forbidden())
            return 0;
        // Connected already, or on the way: success, without effect.
        sockaddr_storage storage;
        socklen_t size = sizeof storage;
        int listening = 0;
        if (sys::getpeername(fd, &storage, &size) == 0)
            return 0;
        option(fd, SO_ACCEPTCONN, listening);
        if (!take_in_early_sets())
            return 0;
        install_fault_handlers();
        stream = make_stream(fd);
        if (stream == nullptr)
            return 0;  // no room: it stays on the slow path, silently
    } else if (stream->state() != State::kIdle) {
        return 0;
    }
    stream->shared->opted_in.store(on != 0, std::memory_order_relaxed);
    stream->shared->opted_out.store(on == 0, std::memory_order_relaxed);
    return 0;
}

LOOPFAST_PUBLIC int loopfast_lane(int fd) {
    Stream* const stream = find_stream(fd);
    if (stream == nullptr) {
        int value = 0;
        const int result = is_hidden(fd) ? -EBADF : option(fd, SO_TYPE, value);
        return result < 0 ? returned<int>(result) : LOOPFAST_LANE_KERNEL;
    }
    if (!stream->fused())
        return LOOPFAST_LANE_KERNEL;
    const int error = errno;
    advance(*stream, fd);
    errno = error;
    occasions_begin(*stream);
    // What the peer left behind, and all that follows, goes over the kernel lane.
    if (!stream->out_in_ring() || stream->shared->peer_left.load(std::memory_order_relaxed) != 0)
        return LOOPFAST_LANE_KERNEL;
    // The other direction has moved over once its cut was published. Acquire as in receive_some; nothing but
    // the word itself is used here.
    return stream->in_in_ring() || !stream->in().producer.cut.load(std::memory_order_acquire).equals(kNoCut)
               ? LOOPFAST_LANE_RING
               : LOOPFAST_LANE_KERNEL;
}

LOOPFAST_PUBLIC int loopfast_reason(int fd) {
    Stream* const stream = find_stream(fd);
    if (stream == nullptr) {
        int value = 0;
        const int result = is_hidden(fd) ? -EBADF : option(fd, SO_PROTOCOL, value);
        if (result < 0)
            return returned<int>(result);
        if (value != IPPROTO_TCP)
            return LOOPFAST_REASON_NOT_TCP;
        if (setups_forbidden())
            return LOOPFAST_REASON_RESTRICTED;
        return lacked_room() && any_opted_in() ? LOOPFAST_REASON_LIMIT : LOOPFAST_REASON_POLICY;
    }
    return static_cast<int>(stream->shared->reason.load(std::memory_order_relaxed));
}

LOOPFAST_PUBLIC const char* loopfast_reason_name(int reason) { return reason_name(reason); }

}  // namespace loopfast
