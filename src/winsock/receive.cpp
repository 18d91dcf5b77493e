// recv and its relatives.
#include "winsock/blocking.h"
#include "winsock/call.h"
#include "winsock/event_select.h"
#include "winsock/native.h"

namespace loopfast::winsock {

namespace {

constexpr DWORD kKnownFlags =
    MSG_OOB | MSG_PEEK | MSG_WAITALL | MSG_PARTIAL | MSG_PUSH_IMMEDIATE | MSG_INTERRUPT;

int begin(Socket& socket, DWORD flags, Call& call) {
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
    if (socket.shut_receive.load(std::memory_order_relaxed))
        return WSAESHUTDOWN;  // what was begun before goes on
    return connecting(socket) ? WSAENOTCONN : 0;
}

/// After a receive: FD_READ, or FD_OOB, may be recorded again.
void enable(Socket& socket, const Call& call) {
    if (knows_events(socket))
        enable_event(socket, (call.flags & native::kOutOfBand) != 0 ? FD_OOB : FD_READ);
}

/// One attempt, under the lock. WSAEWOULDBLOCK too while MSG_WAITALL wants more.
int attempt(Socket& socket, Call& call) {
    int flags = call.flags;
    size_t moved;
    const int error =
        socket.try_receive(call.buffers.rest(), call.buffers.rest_count(), call.buffers.rest_size(), flags,
                           call.from != nullptr ? &call.address : nullptr, moved);
    if (error == 0 || error == WSAEMSGSIZE) {
        call.buffers.advance(moved);
        call.out_flags = error != 0 ? MSG_PARTIAL : 0;
        return error == 0 && call.wait_all && moved > 0 && call.buffers.rest_size() > 0 ? WSAEWOULDBLOCK
                                                                                        : error;
    }
    return error != WSAEWOULDBLOCK && call.buffers.done > 0 ? 0 : error;
}

int receive_now(Socket& socket, Call& call) {
    const DWORD timeout = socket.settings.receive_timeout;
    const int64_t deadline = timeout != 0 ? deadline_of(timeout) : kNever;
    for (;;) {
        bool queued;
        int error = WSAEWOULDBLOCK;
        {
            Hold hold(socket.in.lock);
            queued = !socket.in.empty();
            if (!queued)
                error = attempt(socket, call);
        }
        if (error != WSAEWOULDBLOCK)
            return error;
        if ((call.flags & native::kOutOfBand) != 0)
            return WSAEINVAL;  // there is no urgent byte; only an overlapped receive waits for one
        if (socket.nonblocking.load(std::memory_order_relaxed))
            return call.buffers.done > 0 ? 0 : WSAEWOULDBLOCK;
        if (!call.buffers.usable(true))
            return WSAEFAULT;
        if (queued && call.from == nullptr)
            return go_behind(socket, call);
        const int waited = wait_until_ready(socket, native::kIn, deadline);
        if (waited != 0)
            return call.buffers.done > 0 ? 0 : waited;
    }
}

int receive_overlapped(Socket& socket, Call& call, OVERLAPPED* overlapped,
                       LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    const int error = do_overlapped(socket, call, overlapped, routine, [&] {
        // Most overlapped receives are posted before what they are for has come. A look at the ring says so
        // for less than an attempt costs.
        if (call.flags == 0 && call.buffers.total != 0 && socket.nothing_to_receive())
            return WSAEWOULDBLOCK;
        return attempt(socket, call);
    });
    if (error == WSA_IO_PENDING && socket.hot_at.load(std::memory_order_relaxed) == nullptr)
        socket.warm();
    return error;
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
    Call call;
    call.work = Work::kReceive;
    error = call.buffers.take(buffers, count);
    if (error == 0)
        error = begin(*socket, *flags, call);
    if (error != 0)
        return error;
    if (from != nullptr && from_size != nullptr && !socket->is_stream()) {
        if (!writable(from_size) || !writable(from, static_cast<size_t>(*from_size > 0 ? *from_size : 1)))
            return WSAEFAULT;
        call.from = from;
        call.from_size = from_size;
    }
    error =
        is_overlapped ? receive_overlapped(*socket, call, overlapped, routine) : receive_now(*socket, call);
    enable(*socket, call);
    if (error == 0 || error == WSAEMSGSIZE) {
        if (!is_overlapped && call.from != nullptr &&
            to_windows(call.address, call.from, call.from_size) != 0)
            return WSAEFAULT;
        if (received != nullptr)
            *received = static_cast<DWORD>(call.buffers.done);
        *flags = call.out_flags;
    }
    return error;
}

int receive_bytes(SOCKET handle, char* bytes, int size, int flags, sockaddr* from, int* from_size) {
    return with_one_buffer(handle, bytes, size, [&](WSABUF& one, DWORD& received) {
        auto windows_flags = static_cast<DWORD>(flags);
        return receive_buffers(handle, &one, 1, &received, &windows_flags, from, from_size, nullptr, nullptr);
    });
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
