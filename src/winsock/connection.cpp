// Making, binding, connecting, ending sockets.
#include <cerrno>

#include "winsock/blocking.h"
#include "winsock/connection.h"
#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/native.h"
#include "winsock/probe.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

namespace {

/// What socket() and WSASocket() ask for, as Linux's numbers. @return 0 or an error.
int kind_of_socket(int& family, int& type, int& protocol) {
    if (family == AF_UNSPEC && protocol == 0)
        return WSAEINVAL;
    if (family == AF_UNSPEC)
        family = AF_INET;
    if (type == 0)
        type = protocol == IPPROTO_UDP ? SOCK_DGRAM : SOCK_STREAM;
    if (type != SOCK_STREAM && type != SOCK_DGRAM)
        return WSAESOCKTNOSUPPORT;
    family = native_family(family);
    if (family < 0)
        return WSAEAFNOSUPPORT;
    const int usual = type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
    if (protocol == 0)
        protocol = usual;
    if (protocol != usual)
        return WSAEPROTONOSUPPORT;  // also where the page would allow WSAEPROTOTYPE
    return 0;
}

void begin_options(int fd, int family) {
    if (family == native::kInet6)
        native::set(fd, native::Option::kOnly6, 1);  // Windows' default
}

SOCKET make_socket(int family, int type, int protocol, DWORD flags, int& error) {
    error = check_call();
    if (error == 0)
        error = kind_of_socket(family, type, protocol);
    if (error != 0)
        return INVALID_SOCKET;
    const int fd = native::socket(family, type, protocol);
    if (fd < 0) {
        error = wsa_of_errno(fd);
        return INVALID_SOCKET;
    }
    begin_options(fd, family);
    return adopt(fd, family, type, protocol, (flags & WSA_FLAG_OVERLAPPED) != 0, error);
}

/// From what a protocol entry says, where the program said FROM_PROTOCOL_INFO.
template <typename Info> int from_info(const Info* info, int& family, int& type, int& protocol) {
    if (info == nullptr)
        return 0;  // FROM_PROTOCOL_INFO is then a number like others that mean nothing
    if (!readable(info))
        return WSAEFAULT;
    if (family == FROM_PROTOCOL_INFO)
        family = info->iAddressFamily;
    if (type == FROM_PROTOCOL_INFO)
        type = info->iSocketType;
    if (protocol == FROM_PROTOCOL_INFO)
        protocol = info->iProtocol;
    return 0;
}

template <typename Info>
SOCKET make_from(int family, int type, int protocol, const Info* info, GROUP group, DWORD flags) {
    constexpr DWORD kKnown = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;
    int error = check_call();
    if (error == 0)
        error = from_info(info, family, type, protocol);
    if (error == 0 && (group != 0 || (flags & ~kKnown) != 0))
        error = WSAEINVAL;
    if (error == 0) {
        const SOCKET made = make_socket(family, type, protocol, flags, error);
        if (error == 0) {
            last_error = 0;
            return made;
        }
    }
    last_error = static_cast<DWORD>(error);
    return INVALID_SOCKET;
}

}  // namespace

SOCKET adopt(int fd, int family, int type, int protocol, bool overlapped, int& error) {
    auto* const socket = new Socket(fd, family, type, protocol, overlapped);
    const UINT_PTR handle = open_handle(socket);
    error = handle != 0 ? 0 : WSAEMFILE;
    return handle != 0 ? handle : INVALID_SOCKET;
}

int bind_socket(Socket& socket, const Address& address) {
    if (socket.state.load(std::memory_order_acquire) != State::kFresh)
        return WSAEINVAL;
    // SO_REUSEADDR shares an address with whoever did not forbid it. Linux shares among those that have its
    // SO_REUSEPORT, so a socket without either option gets that after it has bound: others may join it, it
    // joins no others. SO_EXCLUSIVEADDRUSE never gets it.
    //
    // Linux's SO_REUSEADDR is another thing: connections that rest in TIME_WAIT are no obstacle, which on
    // Windows they never are; nor are sockets that have it and do not listen, which there they are. So it is
    // on only for a second attempt, and when the socket begins to listen (its connections inherit it).
    using native::Option;
    const Settings& settings = socket.settings;
    if (settings.reuse_address)
        native::set(socket.fd(), Option::kReusePort, 1);
    int result = native::bind(socket.fd(), address.bytes, address.size);
    if (result == -EADDRINUSE && socket.is_stream()) {
        native::set(socket.fd(), Option::kReuseAddress, 1);
        result = native::bind(socket.fd(), address.bytes, address.size);
        native::set(socket.fd(), Option::kReuseAddress, 0);
    }
    if (result == -EADDRINUSE && settings.reuse_address)
        return WSAEACCES;  // somebody holds it exclusively
    if (result < 0)
        return wsa_of_errno(result);
    if (!settings.reuse_address && !settings.exclusive && socket.is_stream())
        native::set(socket.fd(), Option::kReusePort, 1);
    socket.state.store(State::kBound, std::memory_order_release);
    return 0;
}

namespace {
/// ConnectEx has connected it, or is about to, and SO_UPDATE_CONNECT_CONTEXT was not set yet.
bool not_updated(const Socket& socket) {
    return socket.by_connect_ex.load(std::memory_order_relaxed) &&
           socket.context_missing.load(std::memory_order_relaxed);
}
}  // namespace

int begin_connect(Socket& socket, const Address& address) {
    switch (socket.look()) {
    case State::kListening:
    case State::kAccepting:
        return WSAEINVAL;
    case State::kConnected:
        if (socket.is_stream())
            return not_updated(socket) ? WSAEINVAL : WSAEISCONN;
        break;
    case State::kConnecting:
        return not_updated(socket) ? WSAEINVAL : WSAEALREADY;
    default:
        break;
    }
    if (socket.is_stream() && address.port() == 0)
        return WSAEADDRNOTAVAIL;
    if (socket.is_stream() && address.is_any())
        return WSAEADDRNOTAVAIL;
    Hold hold(socket.connecting);
    const State now = socket.state.load(std::memory_order_relaxed);
    if (now == State::kAccepting || now == State::kConnecting ||
        (now == State::kConnected && socket.is_stream()))
        return WSAEALREADY;  // by another thread, since the look
    forget_events(socket, FD_CONNECT);
    socket.peer = address;
    if (socket.is_stream()) {
        // Of an attempt before; ConnectEx says so again.
        socket.by_connect_ex.store(false, std::memory_order_relaxed);
        socket.context_missing.store(false, std::memory_order_relaxed);
    }
    socket.state.store(State::kConnecting, std::memory_order_release);
    int result = native::connect(socket.fd(), address.bytes, address.size);
    if (result == -ECONNABORTED)
        // Linux tells once more of the attempt before, whose error we had taken.
        result = native::connect(socket.fd(), address.bytes, address.size);
    if (result == 0) {
        socket.connected();
        return 0;
    }
    if (result == -EINPROGRESS)
        return WSAEWOULDBLOCK;
    const int error = wsa_of_errno(result);
    socket.connect_error.store(error, std::memory_order_relaxed);
    socket.state.store(State::kFailed, std::memory_order_release);
    return error;
}

int finish_connect(Socket& socket, int64_t deadline) {
    for (;;) {
        switch (socket.look()) {
        case State::kConnected:
            return 0;
        case State::kFailed:
            return socket.connect_error.load(std::memory_order_relaxed);
        default:
            break;
        }
        const int error = wait_until_ready(socket, native::kOut, deadline);
        if (error != 0 && socket.look() == State::kConnecting)
            return error;
    }
}

int connect_socket(Socket& socket, const sockaddr* name, int size) {
    Address address;
    int error = from_windows(name, size, socket.family, address);
    if (error != 0)
        return error;
    error = begin_connect(socket, address);
    if (error == WSAEWOULDBLOCK && !socket.nonblocking.load(std::memory_order_relaxed))
        error = finish_connect(socket, kNever);
    if (has_selection(socket)) {
        if (error == WSAEWOULDBLOCK) {
            socket.watch(true);
            note_events(socket);
        } else if (error != WSAEALREADY && error != WSAEISCONN && error != WSAEINVAL) {
            note_connect(socket, error);
        }
    }
    return error;
}

int name_of_socket(Socket& socket, bool peer, Address& address) {
    const State state = socket.state.load(std::memory_order_acquire);
    if (!peer && (state == State::kFresh || state == State::kAccepting))
        return WSAEINVAL;
    if (peer &&
        (socket.context_missing.load(std::memory_order_relaxed) || socket.look() != State::kConnected))
        return WSAENOTCONN;
    address.size = sizeof address.bytes;
    const int result = (peer ? native::peer : native::name)(socket.fd(), address.bytes, &address.size);
    if (peer && result == -ENOTCONN && socket.peer.size != 0) {
        // Linux forgets it at the end of the connection, Windows when the socket is closed.
        address = socket.peer;
        return 0;
    }
    return wsa_of_errno(result);
}

namespace {

int name_into(SOCKET s, bool peer, sockaddr* name, int* size) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    Address address;
    if (error == 0)
        error = name_of_socket(*socket, peer, address);
    return error != 0 ? error : to_windows(address, name, size);
}

int empty_or_null(const WSABUF* buffer) {
    if (buffer == nullptr)
        return 0;
    return !readable(buffer) ? WSAEFAULT : buffer->len != 0 ? WSAEOPNOTSUPP : 0;
}

int shut(SOCKET s, int how) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return error;
    if (how != SD_RECEIVE && how != SD_SEND && how != SD_BOTH)
        return WSAEINVAL;
    if (socket->context_missing.load(std::memory_order_relaxed) ||
        (socket->is_stream() && socket->look() != State::kConnected))
        return WSAENOTCONN;
    // Only marked: the peer is not told, and what is on its way to us Linux takes all the same.
    if (how != SD_SEND)
        socket->shut_receive.store(true, std::memory_order_relaxed);
    if (how != SD_RECEIVE && !socket->shut_send.load(std::memory_order_relaxed)) {
        Hold hold(socket->out.lock);
        socket->shut_send.store(true, std::memory_order_relaxed);
        error = socket->shut_send_in_order();
        if (error == WSAENOTCONN && socket->is_stream())
            error = 0;  // reset meanwhile
    }
    return error;
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API SOCKET WSAAPI socket(int family, int type, int protocol) {
    int error;
    const SOCKET made =
        make_socket(family, type, protocol, this_thread().open_type == 0 ? WSA_FLAG_OVERLAPPED : 0, error);
    last_error = static_cast<DWORD>(error);
    return made;
}
LOOPFAST_API SOCKET WSAAPI WSASocketA(int family, int type, int protocol, LPWSAPROTOCOL_INFOA info,
                                      GROUP group, DWORD flags) {
    return make_from(family, type, protocol, info, group, flags);
}
LOOPFAST_API SOCKET WSAAPI WSASocketW(int family, int type, int protocol, LPWSAPROTOCOL_INFOW info,
                                      GROUP group, DWORD flags) {
    return make_from(family, type, protocol, info, group, flags);
}

LOOPFAST_API int WSAAPI closesocket(SOCKET s) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return reported(error);
    bool linger = false;
    int seconds = 0;
    if (socket->is_stream() && native::get_linger(socket->fd(), linger, seconds) >= 0 && linger &&
        seconds > 0) {
        // A lingering close waits for the bytes to be acknowledged; one that must not wait says so.
        const int64_t deadline = deadline_of(static_cast<uint32_t>(seconds) * 1000);
        for (;;) {
            bool left;
            {
                Hold hold(socket->out.lock);
                if (socket->has_backlog())
                    socket->drain_backlog();
                left = socket->has_backlog();
            }
            if (!left)
                break;
            if (socket->nonblocking.load(std::memory_order_relaxed))
                return reported(WSAEWOULDBLOCK);
            if (wait_until_ready(*socket, native::kOut, deadline) != 0)
                break;
        }
    }
    return close_handle(s, Kind::kSocket) ? 0 : reported(WSAENOTSOCK);
}

LOOPFAST_API int WSAAPI bind(SOCKET s, const sockaddr* name, int size) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    Address address;
    if (error == 0)
        error = from_windows(name, size, socket->family, address);
    return reported(error != 0 ? error : bind_socket(*socket, address));
}

LOOPFAST_API int WSAAPI listen(SOCKET s, int backlog) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return reported(error);
    if (!socket->is_stream())
        return reported(WSAEOPNOTSUPP);
    switch (socket->look()) {
    case State::kConnected:
    case State::kConnecting:
        return reported(WSAEISCONN);
    case State::kBound:
    case State::kListening:
        break;
    default:
        return reported(WSAEINVAL);
    }
    if (backlog < 0 && backlog != INT_MIN)
        backlog = -backlog;                                       // SOMAXCONN_HINT
    native::set(socket->fd(), native::Option::kReuseAddress, 1);  // see bind_socket
    const int result = native::listen(socket->fd(), backlog > 0 ? backlog : 1);
    if (result < 0)
        return reported(wsa_of_errno(result));
    socket->state.store(State::kListening, std::memory_order_release);
    if (has_selection(*socket)) {
        socket->watch(false);
        note_events(*socket);
    }
    return reported(0);
}

LOOPFAST_API int WSAAPI connect(SOCKET s, const sockaddr* name, int size) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    return reported(error != 0 ? error : connect_socket(*socket, name, size));
}
LOOPFAST_API int WSAAPI WSAConnect(SOCKET s, const sockaddr* name, int size, LPWSABUF caller_data,
                                   LPWSABUF callee_data, LPQOS, LPQOS) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error == 0)
        error = empty_or_null(caller_data);
    if (error == 0 && callee_data != nullptr) {
        if (!writable(callee_data))
            error = WSAEFAULT;
        else
            callee_data->len = 0;
    }
    return reported(error != 0 ? error : connect_socket(*socket, name, size));
}

LOOPFAST_API int WSAAPI shutdown(SOCKET s, int how) { return reported(shut(s, how)); }
LOOPFAST_API int WSAAPI WSASendDisconnect(SOCKET s, LPWSABUF data) {
    const int error = started() ? empty_or_null(data) : 0;
    return reported(error != 0 ? error : shut(s, SD_SEND));
}
LOOPFAST_API int WSAAPI WSARecvDisconnect(SOCKET s, LPWSABUF data) {
    const int error = started() ? empty_or_null(data) : 0;
    return reported(error != 0 ? error : shut(s, SD_RECEIVE));
}

LOOPFAST_API int WSAAPI getsockname(SOCKET s, sockaddr* name, int* size) {
    return reported(name_into(s, false, name, size));
}
LOOPFAST_API int WSAAPI getpeername(SOCKET s, sockaddr* name, int* size) {
    return reported(name_into(s, true, name, size));
}
