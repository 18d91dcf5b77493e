// recv and its relatives.
#include "winsock/blocking.h"
#include "winsock/buffers.h"
#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/native.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

namespace {

constexpr DWORD kKnownFlags =
    MSG_OOB | MSG_PEEK | MSG_WAITALL | MSG_PARTIAL | MSG_PUSH_IMMEDIATE | MSG_INTERRUPT;

struct Receive {
    Buffers buffers;
    int flags = 0;  ///< Linux's
    bool wait_all = false;
    bool wants_from = false;
    Address from;
    size_t received = 0;
    DWORD out_flags = 0;
};

int begin(Socket& socket, DWORD flags, Receive& call) {
    if ((flags & ~kKnownFlags) != 0)
        return WSAEOPNOTSUPP;
    if ((flags & MSG_OOB) != 0 && !socket.is_stream())
        return WSAEOPNOTSUPP;
    call.flags =
        ((flags & MSG_OOB) != 0 ? native::kOutOfBand : 0) | ((flags & MSG_PEEK) != 0 ? native::kPeek : 0);
    call.wait_all = (flags & MSG_WAITALL) != 0 && socket.is_stream();
    if (call.wait_all && call.flags != 0)
        return WSAEOPNOTSUPP;
    if (!socket.is_stream() && socket.state.load(std::memory_order_relaxed) == State::kFresh)
        return WSAEINVAL;  // not bound: nothing can come
    return 0;
}

/// After a receive: FD_READ, or FD_OOB, may be recorded again.
void enable(Socket& socket, const Receive& call) {
    if (has_selection(socket))
        enable_event(socket, (call.flags & native::kOutOfBand) != 0 ? FD_OOB : FD_READ);
}

/// One attempt. WSAEWOULDBLOCK too when operations are queued before us.
int attempt(Socket& socket, Receive& call, bool& queued) {
    Hold hold(socket.in.lock);
    queued = !socket.in.empty();
    if (queued)
        return WSAEWOULDBLOCK;
    int flags = call.flags;
    size_t moved;
    const int error =
        socket.try_receive(call.buffers.rest(), call.buffers.rest_count(), call.buffers.rest_size(), flags,
                           call.wants_from ? &call.from : nullptr, moved);
    if (error == 0 || error == WSAEMSGSIZE) {
        call.buffers.advance(moved);
        call.received += moved;
        call.out_flags = error != 0 ? MSG_PARTIAL : 0;
        if (error == 0 && call.wait_all && moved > 0 && call.buffers.rest_size() > 0)
            return WSAEWOULDBLOCK;
    } else if (error != WSAEWOULDBLOCK && call.received > 0) {
        return 0;
    }
    return error;
}

/// A blocking receive while overlapped ones are queued goes behind them.
int receive_behind(Socket& socket, Receive& call) {
    OVERLAPPED overlapped{};
    overlapped.hEvent = reinterpret_cast<HANDLE>(UINT_PTR{1});  // no packet
    Target target;
    int error = make_target(socket, &overlapped, nullptr, target);
    if (error != 0)
        return error;
    {
        Hold hold(socket.in.lock);
        Operation* const operation = socket.new_operation(socket.in, target, Work::kReceive);
        operation->set_parts(call.buffers.rest(), call.buffers.rest_count());
        operation->total = call.buffers.rest_size();
        operation->flags = call.flags;
        operation->wait_all = call.wait_all;
        socket.enqueue(socket.in, operation);
        socket.run_in();
    }
    wait_for_overlapped(&overlapped, *socket.reactor());
    call.received += overlapped.InternalHigh;
    return wsa_of_overlapped(overlapped);
}

int receive_now(Socket& socket, Receive& call) {
    const DWORD timeout = socket.settings.receive_timeout;
    const int64_t deadline = timeout != 0 ? deadline_of(timeout) : kNever;
    for (;;) {
        bool queued;
        const int error = attempt(socket, call, queued);
        if (error != WSAEWOULDBLOCK)
            return error;
        if ((call.flags & native::kOutOfBand) != 0)
            return WSAEINVAL;  // there is no urgent byte; only an overlapped receive waits for one
        if (socket.nonblocking.load(std::memory_order_relaxed))
            return call.received > 0 ? 0 : WSAEWOULDBLOCK;
        if (!call.buffers.usable(true))
            return WSAEFAULT;
        if (queued && !call.wants_from)
            return receive_behind(socket, call);
        const int waited = wait_until_ready(socket, native::kIn, deadline);
        if (waited != 0)
            return call.received > 0 ? 0 : waited;
    }
}

int receive_overlapped(Socket& socket, Receive& call, sockaddr* from, int* from_size, OVERLAPPED* overlapped,
                       LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    Target target;
    int error = make_target(socket, overlapped, routine, target);
    if (error != 0)
        return error;
    socket.in.lock.lock();
    bool queued = !socket.in.empty();
    error = WSAEWOULDBLOCK;
    // Most overlapped receives are posted before what they are for has come. A look at the ring says so for
    // less than an attempt costs.
    const bool attempted = !queued && !(call.flags == 0 && call.buffers.rest_size() != 0 &&
                                        !socket.shut_receive.load(std::memory_order_relaxed) &&
                                        socket.nothing_to_receive());
    if (attempted) {
        int flags = call.flags;
        size_t moved;
        error = socket.try_receive(call.buffers.rest(), call.buffers.rest_count(), call.buffers.rest_size(),
                                   flags, call.wants_from ? &call.from : nullptr, moved);
        call.buffers.advance(moved);
        call.received = moved;
        if (error == 0 && call.wait_all && moved > 0 && call.buffers.rest_size() > 0)
            error = WSAEWOULDBLOCK;
    }
    if (error == WSAEWOULDBLOCK && !call.buffers.usable(true))
        error = WSAEFAULT;
    if (error == WSAEWOULDBLOCK) {
        Operation* const operation = socket.new_operation(socket.in, target, Work::kReceive);
        operation->set_parts(call.buffers.rest(), call.buffers.rest_count());
        operation->total = call.buffers.total;
        operation->done = call.received;
        operation->flags = call.flags;
        operation->wait_all = call.wait_all;
        operation->from = from;
        operation->from_size = from_size;
        call.received = 0;
        socket.enqueue(socket.in, operation);
        socket.in.lock.unlock();
        if (!attempted && !queued && socket.hot_at.load(std::memory_order_relaxed) == nullptr) [[unlikely]]
            socket.warm();
        return WSA_IO_PENDING;
    }
    Operation* const operation =
        routine != nullptr && error == 0 ? socket.new_operation(socket.in, target, Work::kReceive) : nullptr;
    socket.in.lock.unlock();
    if (error != 0) {
        forget(target, error);
        return error;
    }
    if (from != nullptr)
        to_windows(call.from, from, from_size);
    complete(operation != nullptr ? operation->target : target, operation, 0, call.received, 0, true);
    return 0;
}

int receive_buffers(SOCKET handle, const WSABUF* buffers, DWORD count, DWORD* received, DWORD* flags,
                    sockaddr* from, int* from_size, OVERLAPPED* overlapped,
                    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    int error;
    Ref<Socket> socket = find_socket(handle, error);
    if (error != 0)
        return error;
    const bool is_overlapped = socket->overlapped && (overlapped != nullptr || routine != nullptr);
    if (!writable_quickly(flags) || (received == nullptr ? !is_overlapped : !writable_quickly(received)))
        return WSAEFAULT;
    Receive call;
    error = call.buffers.take(buffers, count);
    if (error == 0)
        error = begin(*socket, *flags, call);
    if (error != 0)
        return error;
    call.wants_from = from != nullptr && from_size != nullptr && !socket->is_stream();
    if (call.wants_from &&
        (!writable(from_size) || !writable(from, static_cast<size_t>(*from_size > 0 ? *from_size : 1))))
        return WSAEFAULT;
    if (!call.wants_from)
        from = nullptr;
    if (is_overlapped)
        error = receive_overlapped(*socket, call, from, from_size, overlapped, routine);
    else
        error = receive_now(*socket, call);
    enable(*socket, call);
    if (!is_overlapped && (error == 0 || error == WSAEMSGSIZE) && call.wants_from &&
        to_windows(call.from, from, from_size) != 0)
        return WSAEFAULT;
    if (error == 0 || error == WSAEMSGSIZE) {
        if (received != nullptr)
            *received = static_cast<DWORD>(call.received);
        *flags = call.out_flags;
    }
    return error;
}

int receive_bytes(SOCKET handle, char* bytes, int size, int flags, sockaddr* from, int* from_size) {
    const WSABUF one{static_cast<ULONG>(size), bytes};
    DWORD received = 0;
    auto windows_flags = static_cast<DWORD>(flags);
    int error = size < 0 ? WSAEFAULT : 0;
    if (int unusable = 0; error != 0 && !find_socket(handle, unusable))
        error = unusable;
    if (error == 0)
        error =
            receive_buffers(handle, &one, 1, &received, &windows_flags, from, from_size, nullptr, nullptr);
    return error == 0 ? static_cast<int>(received) : reported(error);
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSAAPI recv(SOCKET s, char* buffer, int size, int flags) {
    return receive_bytes(s, buffer, size, flags, nullptr, nullptr);
}
LOOPFAST_API int WSAAPI recvfrom(SOCKET s, char* buffer, int size, int flags, sockaddr* from,
                                 int* from_size) {
    return receive_bytes(s, buffer, size, flags, from, from_size);
}
LOOPFAST_API int WSAAPI WSARecv(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD received, LPDWORD flags,
                                LPWSAOVERLAPPED overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    return reported(
        receive_buffers(s, buffers, count, received, flags, nullptr, nullptr, overlapped, routine));
}
LOOPFAST_API int WSAAPI WSARecvFrom(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD received, LPDWORD flags,
                                    sockaddr* from, LPINT from_size, LPWSAOVERLAPPED overlapped,
                                    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    return reported(
        receive_buffers(s, buffers, count, received, flags, from, from_size, overlapped, routine));
}
