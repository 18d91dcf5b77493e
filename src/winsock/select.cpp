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
};

/// Looks at every socket once. `skip_out`: a backlog makes a socket not writable though Linux says so, so it
/// is looked at again after a pause.
bool look_at_all(const Wanted* wanted, size_t count, short* ready) {
    bool any = false;
    for (size_t i = 0; i < count; ++i) {
        ready[i] = 0;
        if (!wanted[i].socket)
            continue;
        ready[i] = wanted[i].socket->readiness(wanted[i].events);
        any = any || ready[i] != 0;
    }
    return any;
}

/// Waits until one is ready or the deadline. `interesting` says whether what poll found is what was asked
/// for.
template <typename Interesting>
int wait_for_sockets(const Wanted* wanted, size_t count, short* ready, int64_t deadline,
                     Interesting interesting) {
    constexpr int64_t kPause = 1'000'000;
    const std::unique_ptr<native::Poll[]> polls(new native::Poll[count + 1]);
    for (;;) {
        if (look_at_all(wanted, count, ready) && interesting())
            return 0;
        if (left_until(deadline) == 0)
            return 0;
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

/// Whether a socket belongs into the answer of the set that asked for `events`.
bool belongs(Socket& socket, short events, short ready) {
    const State state = socket.look();
    if (events == native::kPriority)
        return (ready & native::kPriority) != 0 || is_failed(socket);
    if (socket.is_stream() && (state == State::kFailed || state == State::kConnecting ||
                               state == State::kFresh || state == State::kBound))
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
            if (belongs(*wanted[i].socket, wanted[i].events, ready[i]))
                return true;
        return false;
    };
    const int error = wait_for_sockets(wanted.get(), count, ready.get(), deadline, any);
    if (error != 0)
        return error;
    at = 0;
    found = 0;
    for (const Set& one : sets) {
        if (one.set == nullptr)
            continue;
        UINT kept = 0;
        const UINT asked = one.set->fd_count;
        for (UINT i = 0; i < asked; ++i, ++at)
            if (belongs(*wanted[at].socket, one.events, ready[at]))
                one.set->fd_array[kept++] = one.set->fd_array[i];
        one.set->fd_count = kept;
        found += static_cast<int>(kept);
    }
    return 0;
}

short windows_events(Socket& socket, short asked, short ready) {
    short events = 0;
    const State state = socket.look();
    if (is_failed(socket) || (ready & native::kError) != 0)
        events |= POLLERR;
    if (state == State::kFailed)
        return static_cast<short>(events | POLLHUP | (asked & POLLOUT));
    if ((ready & native::kIn) != 0)
        events |= static_cast<short>(asked & POLLRDNORM);
    if ((ready & native::kPriority) != 0)
        events |= static_cast<short>(asked & POLLRDBAND);
    const bool linked = !socket.is_stream() || state == State::kConnected;
    if ((ready & native::kOut) != 0 && linked)
        events |= static_cast<short>(asked & POLLWRNORM);
    if (socket.is_stream() && state == State::kConnected && (ready & native::kIn) != 0) {
        // The peer has ended, and nothing is left to be read.
        char byte;
        const long result = native::receive(socket.fd(), &byte, 1, native::kPeek);
        if (result == 0)
            events |= POLLHUP;
        else if (result < 0 && result != -11)
            events |= POLLHUP | POLLERR;
    }
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
    bool any_bad = false;
    for (ULONG i = 0; i < count; ++i) {
        if ((fds[i].events & ~kMayAsk) != 0)
            return WSAEINVAL;
        fds[i].revents = 0;
        if (static_cast<LONGLONG>(fds[i].fd) < 0)
            continue;
        wanted[i].socket = find<Socket>(fds[i].fd);
        if (!wanted[i].socket) {
            fds[i].revents = POLLNVAL;
            any_bad = true;
            continue;
        }
        any_socket = true;
        wanted[i].events = static_cast<short>(((fds[i].events & POLLRDNORM) != 0 ? native::kIn : 0) |
                                              ((fds[i].events & POLLRDBAND) != 0 ? native::kPriority : 0) |
                                              ((fds[i].events & POLLWRNORM) != 0 ? native::kOut : 0));
        if (wanted[i].events == 0)
            wanted[i].events = native::kPeerShut;  // ends and errors are always told
    }
    if (!any_socket)
        return WSAENOTSOCK;
    const auto answer = [&] {
        found = 0;
        for (ULONG i = 0; i < count; ++i) {
            if (wanted[i].socket)
                fds[i].revents = windows_events(*wanted[i].socket, fds[i].events, ready[i]);
            found += fds[i].revents != 0;
        }
        return found > 0;
    };
    const int64_t deadline = timeout < 0               ? kNever
                             : any_bad || timeout == 0 ? now()
                                                       : deadline_of(static_cast<uint32_t>(timeout));
    const int error = wait_for_sockets(wanted.get(), count, ready.get(), deadline, answer);
    answer();
    return error;
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

extern "C++" __attribute__((visibility("default"))) int WSAAPI select(int, fd_set* reading, fd_set* writing,
                                                                      fd_set* except,
                                                                      PTIMEVAL timeout) {
    int found = 0;
    const int error = select_sockets(reading, writing, except, timeout, found);
    return error == 0 ? found : reported(error);
}

LOOPFAST_API int WSAAPI WSAPoll(LPWSAPOLLFD fds, ULONG count, INT timeout) {
    int found = 0;
    const int error = poll_sockets(fds, count, timeout, found);
    return error == 0 ? found : reported(error);
}

LOOPFAST_API int WSAAPI __WSAFDIsSet(SOCKET s, fd_set* set) {
    for (UINT i = 0; i < set->fd_count; ++i)
        if (set->fd_array[i] == s)
            return 1;
    return 0;
}
