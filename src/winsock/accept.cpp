// accept and WSAAccept. What is accepted has the listener's properties: options (Linux copies those it
// knows), mode, selected events; and the path, since libloopfast marks what accept() returns.
#include <cerrno>

#include "winsock/blocking.h"
#include "winsock/connection.h"
#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/native.h"
#include "winsock/probe.h"

namespace loopfast::winsock {

int Socket::try_accept(int& accepted, Address& address) {
    if (!deferred.empty()) {
        accepted = deferred.front().fd;
        address = deferred.front().address;
        deferred.erase(deferred.begin());
        return 0;
    }
    for (;;) {
        address.size = sizeof address.bytes;
        accepted = native::accept(fd(), address.bytes, &address.size);
        if (accepted >= 0)
            return 0;
        // A connection that ended while it waited is no error of the listener's.
        if (accepted == -EINTR || accepted == -ECONNABORTED || accepted == -EPROTO)
            continue;
        return wsa_of_errno(accepted);
    }
}

namespace {

int accept_one(Socket& listener, int& fd, Address& address) {
    if (!listener.is_stream())
        return WSAEOPNOTSUPP;
    if (listener.state.load(std::memory_order_acquire) != State::kListening)
        return WSAEINVAL;
    for (;;) {
        int error = WSAEWOULDBLOCK;
        {
            Hold hold(listener.in.lock);
            if (listener.in.empty())
                error = listener.try_accept(fd, address);
        }
        if (error != WSAEWOULDBLOCK || listener.nonblocking.load(std::memory_order_relaxed)) {
            if (knows_events(listener))
                enable_event(listener, FD_ACCEPT);
            return error;
        }
        error = wait_until_ready(listener, native::kIn, kNever);
        if (error != 0)
            return error;
    }
}

/// Asks the program. @return 0: take it; else the error, and what became of the connection.
int ask(Socket& listener, int fd, Address& peer, LPCONDITIONPROC condition, DWORD_PTR data) {
    Address own;
    own.size = sizeof own.bytes;
    native::name(fd, own.bytes, &own.size);
    sockaddr_storage caller{};
    sockaddr_storage callee{};
    int caller_size = sizeof caller;
    int callee_size = sizeof callee;
    to_windows(peer, reinterpret_cast<sockaddr*>(&caller), &caller_size);
    to_windows(own, reinterpret_cast<sockaddr*>(&callee), &callee_size);
    WSABUF caller_id{static_cast<ULONG>(caller_size), reinterpret_cast<char*>(&caller)};
    WSABUF callee_id{static_cast<ULONG>(callee_size), reinterpret_cast<char*>(&callee)};
    GROUP group = 0;
    int answer;
    {
        InCallback inside;
        answer = condition(&caller_id, nullptr, nullptr, nullptr, &callee_id, nullptr, &group, data);
    }
    switch (answer) {
    case CF_ACCEPT:
        return 0;
    case CF_DEFER: {
        Hold hold(listener.in.lock);
        listener.deferred.insert(listener.deferred.begin(), {fd, peer});
        return WSATRY_AGAIN;
    }
    default:
        // The peer's connection is there already, so it is told by a reset, as one that was refused.
        native::set_linger(fd, true, 0);
        native::close(fd);
        return answer == CF_REJECT ? WSAECONNREFUSED : WSAEINVAL;
    }
}

SOCKET accept_with(SOCKET s, sockaddr* name, int* size, LPCONDITIONPROC condition, DWORD_PTR data) {
    int error;
    Ref<Socket> listener = find_socket(s, error);
    Address address;
    int fd = -1;
    // Looked at before a connection is taken for it.
    if (error == 0 && name != nullptr && size != nullptr) {
        const int least = listener->family == native::kInet6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
        if (!writable(size) || *size < least || !writable(name, static_cast<size_t>(*size)))
            error = WSAEFAULT;
    }
    if (error == 0)
        error = accept_one(*listener, fd, address);
    if (error == 0 && condition != nullptr)
        error = ask(*listener, fd, address, condition, data);
    SOCKET made = INVALID_SOCKET;
    if (error == 0)
        made = adopt(fd, listener->family, listener->type, listener->protocol, listener->overlapped, error);
    if (error == 0) {
        Ref<Socket> socket = find<Socket>(made);
        socket->settings = listener->settings;
        socket->nonblocking.store(listener->nonblocking.load(std::memory_order_relaxed),
                                  std::memory_order_relaxed);
        socket->peer = address;
        socket->connected();
        accepted_events(*socket);
        inherit_selection(*listener, *socket);
        if (name != nullptr && size != nullptr)
            to_windows(address, name, size);
        last_error = 0;
        return made;
    }
    last_error = static_cast<DWORD>(error);
    return INVALID_SOCKET;
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API SOCKET WSAAPI accept(SOCKET s, sockaddr* name, int* size) {
    return accept_with(s, name, size, nullptr, 0);
}
LOOPFAST_API SOCKET WSAAPI WSAAccept(SOCKET s, sockaddr* name, LPINT size, LPCONDITIONPROC condition,
                                     DWORD_PTR data) {
    return accept_with(s, name, size, condition, data);
}
