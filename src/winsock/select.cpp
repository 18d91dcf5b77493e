// select and WSAPoll, as one poll over the descriptors.
#include <climits>

#include <memory>

#include "winsock/blocking.h"
#include "winsock/native.h"
#include "winsock/probe.h"

namespace loopfast::winsock {

namespace {

constexpr short kAnyEnd = native::kHangUp | native::kError;

/// A socket that is waited for.
struct Wanted {
    Ref<Socket> socket;
    short events = 0;
    BlockedCall call;  ///< ended before the socket is let go
    bool closed = false;
    Wanted() = default;
    ~Wanted() { call.end(); }
    Wanted(const Wanted&) = delete;
    Wanted& operator=(const Wanted&) = delete;
};

/// Looks at every socket once. `skip_out`: a backlog makes a socket not writable though Linux says so, so it
/// is looked at again after a pause.
bool look_at_all(Wanted* wanted, size_t count, short* ready) {
    bool any = false;
    for (size_t i = 0; i < count; ++i) {
        ready[i] = 0;
        if (!wanted[i].socket)
            continue;
        if (wanted[i].call.waits() && wanted[i].call.closed()) {
            wanted[i].closed = any = true;
            continue;
        }
        ready[i] = wanted[i].socket->readiness(wanted[i].events);
        any = any || ready[i] != 0;
    }
    return any;
}

/// Waits until one is ready or the deadline. `interesting` says whether what poll found is what was asked
/// for.
template <typename Interesting>
int wait_for_sockets(Wanted* wanted, size_t count, short* ready, int64_t deadline, Interesting interesting) {
    constexpr int64_t kPause = 1'000'000;
    const std::unique_ptr<native::Poll[]> polls(new native::Poll[count + 1]);
    for (bool first = true;; first = false) {
        if (look_at_all(wanted, count, ready) && interesting())
            return 0;
        if (left_until(deadline) == 0)
            return 0;
        if (first) {
            // Only a call that waits need hear of a closesocket. It looks again: one may just have been.
            if (!this_thread().can_be_woken())
                return WSAENOBUFS;
            for (size_t i = 0; i < count; ++i)
                if (wanted[i].socket && !wanted[i].call.begin(*wanted[i].socket))
                    wanted[i].closed = true;
            continue;
        }
        bool again_soon = false;
        for (size_t i = 0; i < count; ++i) {
            // What Linux reports all the time without anybody having asked must not end the wait.
            const bool idle = !wanted[i].socket || ready[i] != 0 || wanted[i].events == 0;
            const bool backlog =
                !idle && (wanted[i].events & native::kOut) != 0 && wanted[i].socket->has_backlog();
            again_soon = again_soon || backlog;
            short events = wanted[i].events;
            if (backlog)
                events &= static_cast<short>(~native::kOut);
            polls[i + 1] = {idle ? -1 : wanted[i].socket->fd(), events, 0};
        }
        int found;
        const int64_t next = again_soon && left_until(deadline) > kPause ? now() + kPause : deadline;
        const int error = wait_for_polls(polls.get(), static_cast<unsigned>(count + 1), next, found);
        if (error != 0)
            return error;
    }
}

/// One of select's sets.
struct Set {
    fd_set* set;
    short events;
};

bool is_failed(const Socket& socket) {
    return socket.state.load(std::memory_order_acquire) == State::kFailed &&
           socket.connect_error.load(std::memory_order_relaxed) != 0;
}

/// Whether an urgent byte is one of the others.
bool in_line(const Socket& socket) {
    int on = 0;
    return socket.is_stream() && native::get(socket.fd(), native::Option::kOobInline, on) >= 0 && on != 0;
}

/// Whether a socket belongs into the answer of the set that asked for `events`.
bool belongs(const Wanted& wanted, short ready) {
    const short events = wanted.events;
    Socket& socket = *wanted.socket;
    if (wanted.closed)
        return events == native::kIn;
    const State state = socket.look();
    if (events == native::kPriority)
        return ((ready & native::kPriority) != 0 && !in_line(socket)) || is_failed(socket);
    if (socket.is_stream() &&
        (state == State::kFailed || state == State::kConnecting || state == State::kFresh ||
         state == State::kBound || state == State::kAccepting))
        return false;
    if (events == native::kIn)
        return (ready & (native::kIn | kAnyEnd)) != 0;
    return (ready & (native::kOut | native::kError)) != 0;
}

int select_sockets(fd_set* reading, fd_set* writing, fd_set* except, const timeval* timeout, int& found) {
    const int unusable = check_call();
    if (unusable != 0)
        return unusable;
    const Set sets[3] = {{reading, native::kIn}, {writing, native::kOut}, {except, native::kPriority}};
    size_t count = 0;
    for (const Set& one : sets) {
        if (one.set == nullptr)
            continue;
        if (!writable(one.set, sizeof one.set->fd_count) ||
            !writable(reinterpret_cast<char*>(one.set),
                      offsetof(fd_set, fd_array) + one.set->fd_count * sizeof(SOCKET)))
            return WSAEFAULT;
        count += one.set->fd_count;
    }
    if (count == 0)
        return WSAEINVAL;
    int64_t deadline = kNever;
    if (timeout != nullptr) {
        if (!readable(timeout))
            return WSAEFAULT;
        if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
            return WSAEINVAL;
        deadline = now() + timeout->tv_sec * 1'000'000'000LL + timeout->tv_usec * 1000LL;
    }
    const std::unique_ptr<Wanted[]> wanted(new Wanted[count]);
    const std::unique_ptr<short[]> ready(new short[count]);
    size_t at = 0;
    for (const Set& one : sets)
        for (UINT i = 0; one.set != nullptr && i < one.set->fd_count; ++i, ++at) {
            int error;
            wanted[at].socket = find_socket(one.set->fd_array[i], error);
            wanted[at].events = one.events;
            if (error != 0)
                return error;
        }
    const auto any = [&] {
        for (size_t i = 0; i < count; ++i)
            if (wanted[i].closed || belongs(wanted[i], ready[i]))
                return true;
        return false;
    };
    const int error = wait_for_sockets(wanted.get(), count, ready.get(), deadline, any);
    if (error != 0)
        return error;
    // All sets are emptied before one is filled: a program may give one twice, and then both answers are in
    // it. A socket that was closed meanwhile is told as readable; where that was not asked it is an error.
    bool closed = false;
    for (const Set& one : sets)
        if (one.set != nullptr)
            one.set->fd_count = 0;
    found = 0;
    for (at = 0; at < count; ++at) {
        closed = closed || wanted[at].closed;
        if (!belongs(wanted[at], ready[at]))
            continue;
        fd_set* const set = sets[wanted[at].events == native::kIn    ? 0
                                 : wanted[at].events == native::kOut ? 1
                                                                     : 2]
                                .set;
        const SOCKET s = wanted[at].socket->handle();
        if (__WSAFDIsSet(s, set) != 0)
            continue;
        set->fd_array[set->fd_count++] = s;
        ++found;
    }
    return closed && found == 0 ? WSAENOTSOCK : 0;
}

/// What the end of a connection adds, and takes away. @param readable whether Linux says so.
short end_events(Socket& socket, short ready) {
    if (socket.broken.load(std::memory_order_relaxed) != 0)
        return POLLHUP | POLLERR;  // Linux told it once
    const short end = native::ready_now(socket.fd(), native::kPeerShut | native::kIn);
    if ((end & (native::kPeerShut | kAnyEnd)) == 0 && (ready & native::kIn) == 0)
        return 0;
    char byte;
    const long result = native::receive(socket.fd(), &byte, 1, native::kPeek);
    if (result == 0)
        return POLLHUP;
    if (result < 0 && result != -11)
        return POLLHUP | POLLERR;
    const bool has_byte = result > 0;
    return static_cast<short>(((end & native::kPeerShut) != 0 ? POLLHUP : 0) | (has_byte ? POLLRDNORM : 0));
}

short windows_events(Socket& socket, short asked, short ready) {
    const State state = socket.look();
    const bool failed = is_failed(socket) || (ready & native::kError) != 0;
    if (state == State::kFailed)
        return static_cast<short>((failed ? POLLERR : 0) | POLLHUP | (asked & POLLOUT));
    short events = failed ? POLLERR : 0;
    const bool connected = socket.is_stream() && state == State::kConnected;
    if ((ready & native::kPriority) != 0 && !in_line(socket))
        events |= static_cast<short>(asked & POLLRDBAND);
    if ((ready & native::kOut) != 0 && (!socket.is_stream() || connected))
        events |= static_cast<short>(asked & POLLWRNORM);
    if (connected)  // the end itself is nothing to be read
        events |= static_cast<short>(end_events(socket, ready) & (asked | POLLHUP | POLLERR));
    else if ((ready & native::kIn) != 0)
        events |= static_cast<short>(asked & POLLRDNORM);
    return events;
}

int poll_sockets(WSAPOLLFD* fds, ULONG count, int timeout, int& found) {
    const int unusable = check_call();
    if (unusable != 0)
        return unusable;
    if (count == 0)
        return WSAEINVAL;
    if (fds == nullptr || !writable(reinterpret_cast<char*>(fds), size_t{count} * sizeof *fds))
        return WSAEFAULT;
    const std::unique_ptr<Wanted[]> wanted(new Wanted[count]);
    const std::unique_ptr<short[]> ready(new short[count]);
    constexpr short kMayAsk = POLLRDNORM | POLLRDBAND | POLLWRNORM;
    bool any_socket = false;
    bool any_wrong = false;
    for (ULONG i = 0; i < count; ++i) {
        // What is no socket is marked, and neither counted nor a reason not to wait for the others.
        fds[i].revents = POLLNVAL;
        if (static_cast<LONGLONG>(fds[i].fd) < 0)
            continue;
        any_wrong = any_wrong || (fds[i].events & ~kMayAsk) != 0;
        wanted[i].socket = find<Socket>(fds[i].fd);
        if (!wanted[i].socket)
            continue;
        fds[i].revents = 0;
        any_socket = true;
        wanted[i].events = static_cast<short>(((fds[i].events & POLLRDNORM) != 0 ? native::kIn : 0) |
                                              ((fds[i].events & POLLRDBAND) != 0 ? native::kPriority : 0) |
                                              ((fds[i].events & POLLWRNORM) != 0 ? native::kOut : 0) |
                                              native::kPeerShut);  // the end is always told
    }
    if (!any_socket)
        return WSAENOTSOCK;
    if (any_wrong) {
        for (ULONG i = 0; i < count; ++i)
            fds[i].revents = 0;
        return WSAEINVAL;
    }
    const auto answer = [&] {
        found = 0;
        for (ULONG i = 0; i < count; ++i) {
            if (!wanted[i].socket)
                continue;
            fds[i].revents =
                wanted[i].closed ? POLLNVAL : windows_events(*wanted[i].socket, fds[i].events, ready[i]);
            found += fds[i].revents != 0;
        }
        return found > 0;
    };
    const int64_t deadline = timeout < 0 ? kNever : deadline_of(static_cast<uint32_t>(timeout));
    const int error = wait_for_sockets(wanted.get(), count, ready.get(), deadline, answer);
    answer();
    return error;
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

extern "C++" __attribute__((visibility("default"))) int WSAAPI select(int, fd_set* reading, fd_set* writing,
                                                                      fd_set* except, PTIMEVAL timeout) {
    int found = 0;
    const int error = select_sockets(reading, writing, except, timeout, found);
    return reported(error) == 0 ? found : SOCKET_ERROR;
}

LOOPFAST_API int WSAAPI WSAPoll(LPWSAPOLLFD fds, ULONG count, INT timeout) {
    int found = 0;
    const int error = poll_sockets(fds, count, timeout, found);
    return reported(error) == 0 ? found : SOCKET_ERROR;
}

LOOPFAST_API int WSAAPI __WSAFDIsSet(SOCKET s, fd_set* set) {
    for (UINT i = 0; i < set->fd_count; ++i)
        if (set->fd_array[i] == s)
            return 1;
    return 0;
}
