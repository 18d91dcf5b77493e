// AcceptEx, ConnectEx, DisconnectEx, GetAcceptExSockaddrs.
//
// Linux makes a new descriptor for what it accepts; it becomes the descriptor of the socket that the program
// gave, which so gets the listener's path. Its own options are put on it, until SO_UPDATE_ACCEPT_CONTEXT asks
// for the listener's.
#include "winsock/extension.h"

#include "winsock/buffers.h"
#include "winsock/connection.h"
#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/native.h"
#include "winsock/options.h"

namespace loopfast::winsock {

namespace {

constexpr DWORD kMargin = 16;  ///< what each address area must have besides the address

/// An address area: the length, then the address.
void write_area(char* area, DWORD size, const Address& address) {
    int length = static_cast<int>(size - sizeof(int));
    auto* const name = reinterpret_cast<sockaddr*>(area + sizeof(int));
    if (to_windows(address, name, &length) == 0)
        memcpy(area, &length, sizeof length);
}

void write_addresses(int fd, Operation& operation) {
    Address local;
    Address remote;
    local.size = remote.size = sizeof local.bytes;
    if (native::name(fd, local.bytes, &local.size) < 0 || native::peer(fd, remote.bytes, &remote.size) < 0)
        return;
    char* const area = operation.output + operation.data_size;
    if (operation.local_size != 0)
        write_area(area, operation.local_size, local);
    write_area(area + operation.local_size, operation.remote_size, remote);
}

void become_accepted(Socket& listener, Socket& accepted, int fd, const Address& address) {
    native::copy_options(accepted.fd(), fd);
    copy_buffer_sizes(accepted, fd);
    if (!listener.settings.exclusive)
        native::set(fd, native::Option::kReuseAddress, 1);
    accepted.replace(fd);
    accepted.context_missing.store(true, std::memory_order_relaxed);
    accepted.broken.store(0, std::memory_order_relaxed);
    accepted.shut_receive.store(false, std::memory_order_relaxed);
    accepted.shut_send.store(false, std::memory_order_relaxed);
    accepted_events(accepted);
    accepted.peer = address;
    accepted.connected();
}

}  // namespace

namespace {
/// Whether there is room for an address; none at all is a wish not to have it.
bool fits(DWORD size, int family) {
    return size == 0 ||
           size >= (family == native::kInet6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in)) + kMargin;
}
}  // namespace

int accept_pending(Socket& listener, Operation& operation, bool& moved_on) {
    if (!fits(operation.local_size, listener.family) || !fits(operation.remote_size, listener.family)) {
        // As on Windows it is the connection that finds the room too small; it is left to the next one.
        const bool any = !listener.deferred.empty() || native::ready_now(listener.fd(), native::kIn) != 0;
        return any ? ERROR_INSUFFICIENT_BUFFER : WSAEWOULDBLOCK;
    }
    int fd;
    Address address;
    const int error = listener.try_accept(fd, address);
    if (error != 0)
        return error;
    Socket& accepted = *operation.accepted;
    become_accepted(listener, accepted, fd, address);
    if (operation.data_size == 0)
        write_addresses(fd, operation);
    moved_on = operation.data_size != 0;
    return 0;
}

void write_accept_addresses(Socket& accepted, Operation& operation) {
    write_addresses(accepted.fd(), operation);
}

void continue_accept(Socket& listener, Operation* operation) {
    const Ref<Socket> accepted(std::exchange(operation->accepted, nullptr));
    operation->work = Work::kAcceptData;
    operation->listener = listener.handle();
    const iovec part{operation->output, operation->data_size};
    operation->set_parts(&part, 1);
    operation->total = operation->data_size;
    // A listener's lock is held; nobody takes one while holding that of a socket it accepts into.
    Hold hold(accepted->in.lock);
    accepted->enqueue(accepted->in, operation);
    accepted->run_in();
}

namespace {

/// Windows marks the OVERLAPPED as pending before it looks at anything else; it stays so when the call fails.
void mark_pending(OVERLAPPED* overlapped) {
    if (overlapped != nullptr && writable_quickly(overlapped))
        __atomic_store_n(&overlapped->Internal, static_cast<ULONG_PTR>(STATUS_PENDING), __ATOMIC_RELEASE);
}

int accept_ex(SOCKET s, SOCKET into, void* output, DWORD data_size, DWORD local_size, DWORD remote_size,
              DWORD* received, OVERLAPPED* overlapped) {
    mark_pending(overlapped);
    int error;
    Ref<Socket> listener = find_socket(s, error);
    if (error != 0)
        return error;
    Ref<Socket> accepted = find_socket(into, error);
    if (error != 0)
        return error;
    if (overlapped == nullptr)
        return WSA_INVALID_PARAMETER;
    if (listener->state.load(std::memory_order_acquire) != State::kListening)
        return WSAEINVAL;
    if (!accepted->is_stream() || accepted->family != listener->family ||
        accepted->state.load(std::memory_order_acquire) != State::kFresh || !listener->overlapped)
        return WSAEINVAL;
    if (remote_size == 0)
        return WSAEFAULT;
    const size_t room = size_t{data_size} + local_size + remote_size;
    if (!writable(static_cast<char*>(output), room) || (received != nullptr && !writable(received)))
        return WSAEFAULT;
    Target target;
    error = make_target(*listener, overlapped, nullptr, target);
    if (error != 0)
        return error;
    // Nobody else may accept into it, bind it or connect it from now on.
    State fresh = State::kFresh;
    if (!accepted->state.compare_exchange_strong(fresh, State::kAccepting)) {
        forget(target, WSAEINVAL);
        return WSAEINVAL;
    }
    if (target.port != nullptr) {
        // It may go on in the accepted socket's queue when the listener is gone.
        target.port->keep();
        target.port_counted = true;
    }
    Hold hold(listener->in.lock);
    {
        // Who closes it from now on finds the operation.
        Hold inner(accepted->in.lock);
        if (accepted->in.closed) {
            forget(target, WSA_OPERATION_ABORTED);
            return WSAENOTSOCK;
        }
    }
    Operation* const operation = listener->new_operation(listener->in, target, Work::kAccept);
    operation->accepted = accepted.release();
    operation->output = static_cast<char*>(output);
    operation->data_size = data_size;
    operation->local_size = local_size;
    operation->remote_size = remote_size;
    listener->enqueue(listener->in, operation);
    listener->run_in();
    // Done or not: the completion tells it. Windows too says "pending" for an AcceptEx that ends at once.
    return WSA_IO_PENDING;
}

int connect_ex(SOCKET s, const sockaddr* name, int size, void* bytes, DWORD count, DWORD* sent,
               OVERLAPPED* overlapped) {
    mark_pending(overlapped);
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return error;
    if (overlapped == nullptr)
        return WSA_INVALID_PARAMETER;
    if (!socket->is_stream() || !socket->overlapped)
        return WSAEINVAL;
    switch (socket->look()) {
    case State::kFresh:
    case State::kAccepting:
    case State::kListening:
    case State::kConnecting:
        return WSAEINVAL;
    case State::kConnected:
        return WSAEISCONN;
    default:
        break;
    }
    Address address;
    error = from_windows(name, size, socket->family, address);
    if (error == 0 && ((count != 0 && !readable(static_cast<const char*>(bytes), count)) ||
                       (sent != nullptr && !writable(sent))))
        error = WSAEFAULT;
    Target target;
    if (error == 0)
        error = make_target(*socket, overlapped, nullptr, target);
    if (error != 0)
        return error;
    Hold hold(socket->out.lock);
    error = begin_connect(*socket, address);
    if (error != 0 && error != WSAEWOULDBLOCK) {
        forget(target, error);
        return error;
    }
    socket->context_missing.store(true, std::memory_order_relaxed);
    socket->by_connect_ex.store(true, std::memory_order_relaxed);
    Operation* const operation = socket->new_operation(socket->out, target, Work::kConnect);
    const iovec part{bytes, count};
    operation->set_parts(&part, count != 0 ? 1 : 0);
    operation->total = count;
    socket->enqueue(socket->out, operation);
    socket->run_out();
    return WSA_IO_PENDING;
}

int disconnect_ex(SOCKET s, OVERLAPPED* overlapped, DWORD flags, DWORD reserved) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return error;
    if (reserved != 0 || (flags & ~static_cast<DWORD>(TF_REUSE_SOCKET)) != 0)
        return WSAEINVAL;
    if (!socket->is_stream() || socket->look() != State::kConnected)
        return WSAENOTCONN;
    // Without an OVERLAPPED the call waits for one of its own.
    OVERLAPPED own{};
    own.hEvent = reinterpret_cast<HANDLE>(UINT_PTR{1});
    const bool waits = overlapped == nullptr || !socket->overlapped;
    OVERLAPPED* const used = waits ? &own : overlapped;
    Target target;
    error = make_target(*socket, used, nullptr, target);
    if (error != 0)
        return error;
    {
        // Behind what was sent before.
        Hold hold(socket->out.lock);
        Operation* const operation = socket->new_operation(socket->out, target, Work::kDisconnect);
        operation->flags = static_cast<int>(flags);
        operation->set_parts(nullptr, 0);
        socket->enqueue(socket->out, operation);
        socket->run_out();
    }
    {
        Hold hold(socket->in.lock);
        socket->run_in();  // what waited for bytes has lost its connection
    }
    if (!waits)
        return WSA_IO_PENDING;
    wait_for_overlapped(used, *socket->reactor());
    return wsa_of_overlapped(own);
}

BOOL PASCAL connect_ex_function(SOCKET s, const sockaddr* name, int size, PVOID bytes, DWORD count,
                                LPDWORD sent, LPOVERLAPPED overlapped) {
    return truth(connect_ex(s, name, size, bytes, count, sent, overlapped));
}
BOOL PASCAL disconnect_ex_function(SOCKET s, LPOVERLAPPED overlapped, DWORD flags, DWORD reserved) {
    return truth(disconnect_ex(s, overlapped, flags, reserved));
}

}  // namespace

int disconnect_now(Socket& socket, bool reuse) {
    socket.shut_send.store(true, std::memory_order_relaxed);
    native::shutdown(socket.fd(), 1);
    // What the peer still sends can be received: it is a graceful end.
    return reuse ? renew(socket) : 0;
}

int renew(Socket& socket) {
    Address own;
    own.size = sizeof own.bytes;
    const bool named = native::name(socket.fd(), own.bytes, &own.size) >= 0;
    const int fd = native::socket(socket.family, socket.type, socket.protocol);
    if (fd < 0)
        return wsa_of_errno(fd);
    native::copy_options(socket.fd(), fd);
    copy_buffer_sizes(socket, fd);
    native::set(fd, native::Option::kReuseAddress, 1);
    int only6 = 1;
    if (socket.family == native::kInet6 && native::get(socket.fd(), native::Option::kOnly6, only6) >= 0)
        native::set(fd, native::Option::kOnly6, only6);
    if (socket.fast_path.load(std::memory_order_relaxed))
        native::fast_path(fd, 1);
    const bool client = socket.by_connect_ex.exchange(false, std::memory_order_relaxed);
    socket.replace(fd);
    socket.context_missing.store(false, std::memory_order_relaxed);
    socket.shut_receive.store(false, std::memory_order_relaxed);
    socket.shut_send.store(false, std::memory_order_relaxed);
    socket.broken.store(0, std::memory_order_relaxed);
    socket.connect_time.store(0, std::memory_order_relaxed);
    forget_events(socket, FD_ALL_EVENTS);
    socket.state.store(State::kFresh, std::memory_order_release);
    if (client && named) {
        // ConnectEx wants it bound, and Windows keeps it so; its old port may have to rest for a while.
        if (native::bind(fd, own.bytes, own.size) < 0) {
            own.bytes[2] = own.bytes[3] = 0;
            native::bind(fd, own.bytes, own.size);
        }
        socket.state.store(State::kBound, std::memory_order_release);
    }
    return 0;
}

void* extension_function(const GUID& name) {
    static constexpr GUID kAcceptEx = WSAID_ACCEPTEX;
    static constexpr GUID kConnectEx = WSAID_CONNECTEX;
    static constexpr GUID kDisconnectEx = WSAID_DISCONNECTEX;
    static constexpr GUID kAddresses = WSAID_GETACCEPTEXSOCKADDRS;
    if (name == kAcceptEx)
        return reinterpret_cast<void*>(&AcceptEx);
    if (name == kConnectEx)
        return reinterpret_cast<void*>(&connect_ex_function);
    if (name == kDisconnectEx)
        return reinterpret_cast<void*>(&disconnect_ex_function);
    if (name == kAddresses)
        return reinterpret_cast<void*>(&GetAcceptExSockaddrs);
    return nullptr;
}

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API BOOL PASCAL AcceptEx(SOCKET listener, SOCKET accepted, PVOID output, DWORD data_size,
                                  DWORD local_size, DWORD remote_size, LPDWORD received,
                                  LPOVERLAPPED overlapped) {
    return truth(
        accept_ex(listener, accepted, output, data_size, local_size, remote_size, received, overlapped));
}

LOOPFAST_API void PASCAL GetAcceptExSockaddrs(PVOID output, DWORD data_size, DWORD local_size,
                                              DWORD remote_size, sockaddr** local, LPINT local_length,
                                              sockaddr** remote, LPINT remote_length) {
    if (!readable(static_cast<char*>(output) + data_size, size_t{local_size} + remote_size) ||
        !writable(local) || !writable(local_length) || !writable(remote) || !writable(remote_length))
        return;
    char* const area = static_cast<char*>(output) + data_size;
    if (local_size != 0) {
        memcpy(local_length, area, sizeof *local_length);
        *local = reinterpret_cast<sockaddr*>(area + sizeof(int));
    }
    memcpy(remote_length, area + local_size, sizeof *remote_length);
    *remote = reinterpret_cast<sockaddr*>(area + local_size + sizeof(int));
}
