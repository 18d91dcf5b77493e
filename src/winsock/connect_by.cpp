// WSAConnectByList and WSAConnectByName: one address after the other, in order, until one answers. Each
// attempt has a descriptor of its own, with the socket's options and its opt-in; the winner's stays: so only
// the winner decides which path the connection takes.
#include "winsock/blocking.h"
#include "winsock/connection.h"
#include "winsock/errors.h"
#include "winsock/names.h"
#include "winsock/options.h"
#include "winsock/probe.h"

namespace loopfast::winsock {

namespace {

struct Answer {
    DWORD* local_size;
    sockaddr* local;
    DWORD* remote_size;
    sockaddr* remote;
};

int check(const Answer& answer) {
    for (const auto& [size, name] :
         {std::pair{answer.local_size, answer.local}, {answer.remote_size, answer.remote}}) {
        if (size == nullptr && name == nullptr)
            continue;
        if (!writable(size) || (name != nullptr && !writable(reinterpret_cast<char*>(name), *size)))
            return WSAEFAULT;
    }
    return 0;
}

int deadline_from(const timeval* timeout, int64_t& deadline) {
    deadline = kNever;
    if (timeout == nullptr)
        return 0;
    if (!readable(timeout))
        return WSAEFAULT;
    if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
        return WSAEINVAL;
    deadline = now() + timeout->tv_sec * 1'000'000'000LL + timeout->tv_usec * 1000LL;
    return 0;
}

void give_name(Socket& socket, bool peer, DWORD* size, sockaddr* name) {
    if (size == nullptr || name == nullptr)
        return;
    Address address;
    if (name_of_socket(socket, peer, address) != 0)
        return;
    int room = static_cast<int>(*size);
    if (to_windows(address, name, &room) == 0)
        *size = static_cast<DWORD>(room);
}

/// An attempt that failed spoils its descriptor for the next; a fresh one takes its place, bound as the first
/// was.
int begin_anew(Socket& socket, const Address& own) {
    int error = renew(socket);
    if (error == 0 && own.size != 0)
        error = bind_socket(socket, own);
    return error;
}

int connect_to_first(Socket& socket, std::vector<Address>& targets, int64_t deadline, const Answer& answer) {
    switch (socket.look()) {
    case State::kConnected:
        return WSAEISCONN;
    case State::kConnecting:
    case State::kListening:
        return WSAEINVAL;
    default:
        break;
    }
    Address own;  // empty: not bound
    if (socket.state.load(std::memory_order_acquire) == State::kBound &&
        name_of_socket(socket, false, own) != 0)
        own.size = 0;
    int error = WSAEADDRNOTAVAIL;
    bool first = true;
    for (Address& target : targets) {
        if (target.family() != socket.family) {
            if (socket.family != native::kInet6)
                continue;
            target.map_into_6();
        }
        if (!first && (error = begin_anew(socket, own)) != 0)
            return error;
        first = false;
        error = begin_connect(socket, target);
        if (error == WSAEWOULDBLOCK)
            error = finish_connect(socket, deadline);
        if (error == 0) {
            give_name(socket, false, answer.local_size, answer.local);
            give_name(socket, true, answer.remote_size, answer.remote);
            return 0;
        }
        if (error == WSAETIMEDOUT && left_until(deadline) == 0) {
            begin_anew(socket, own);
            return error;
        }
        if (error == WSAEINTR)
            return error;
    }
    return error;
}

int by_list(SOCKET s, SOCKET_ADDRESS_LIST* list, const Answer& answer, const timeval* timeout,
            OVERLAPPED* reserved) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return error;
    int64_t deadline;
    if (list == nullptr || reserved != nullptr)
        return WSAEINVAL;
    if (!readable(&list->iAddressCount))
        return WSAEFAULT;
    if (list->iAddressCount <= 0 || !socket->is_stream())
        return WSAEINVAL;
    if (!readable(list->Address, static_cast<size_t>(list->iAddressCount) * sizeof *list->Address))
        return WSAEFAULT;
    error = check(answer);
    if (error == 0)
        error = deadline_from(timeout, deadline);
    std::vector<Address> targets;
    for (int i = 0; error == 0 && i < list->iAddressCount; ++i) {
        const SOCKET_ADDRESS& one = list->Address[i];
        if (one.iSockaddrLength < 2 || !readable(one.lpSockaddr, static_cast<size_t>(one.iSockaddrLength)))
            return WSAEFAULT;
        Address address;
        error = from_windows(one.lpSockaddr, one.iSockaddrLength, native_family(one.lpSockaddr->sa_family),
                             address);
        targets.push_back(address);
    }
    return error != 0 ? error : connect_to_first(*socket, targets, deadline, answer);
}

int by_name(SOCKET s, const char* node, const char* service, const Answer& answer, const timeval* timeout,
            OVERLAPPED* reserved) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return error;
    int64_t deadline;
    if (node == nullptr || service == nullptr || reserved != nullptr || !socket->is_stream())
        return WSAEINVAL;
    error = check(answer);
    if (error == 0)
        error = deadline_from(timeout, deadline);
    std::vector<native::Resolved> found;
    if (error == 0)
        error = look_up(node, service, 0, socket->family == native::kInet6 ? 0 : native::kInet, SOCK_STREAM,
                        IPPROTO_TCP, found);
    if (error != 0)
        return error;
    std::vector<Address> targets;
    for (const native::Resolved& one : found) {
        Address address;
        address.size = one.size;
        memcpy(address.bytes, one.address, one.size);
        targets.push_back(address);
    }
    return connect_to_first(*socket, targets, deadline, answer);
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API BOOL PASCAL WSAConnectByList(SOCKET s, PSOCKET_ADDRESS_LIST list, LPDWORD local_size,
                                          LPSOCKADDR local, LPDWORD remote_size, LPSOCKADDR remote,
                                          PTIMEVAL timeout, LPWSAOVERLAPPED reserved) {
    return truth(by_list(s, list, {local_size, local, remote_size, remote}, timeout, reserved));
}
LOOPFAST_API BOOL PASCAL WSAConnectByNameA(SOCKET s, LPSTR node, LPSTR service, LPDWORD local_size,
                                           LPSOCKADDR local, LPDWORD remote_size, LPSOCKADDR remote,
                                           PTIMEVAL timeout, LPWSAOVERLAPPED reserved) {
    return truth(by_name(s, node, service, {local_size, local, remote_size, remote}, timeout, reserved));
}
LOOPFAST_API BOOL PASCAL WSAConnectByNameW(SOCKET s, LPWSTR node, LPWSTR service, LPDWORD local_size,
                                           LPSOCKADDR local, LPDWORD remote_size, LPSOCKADDR remote,
                                           PTIMEVAL timeout, LPWSAOVERLAPPED reserved) {
    const std::string node_text = node != nullptr ? narrow(node) : "";
    const std::string service_text = service != nullptr ? narrow(service) : "";
    return truth(by_name(s, node != nullptr ? node_text.c_str() : nullptr,
                         service != nullptr ? service_text.c_str() : nullptr,
                         {local_size, local, remote_size, remote}, timeout, reserved));
}
