// send and its relatives.
#include "winsock/blocking.h"
#include "winsock/call.h"
#include "winsock/event_select.h"
#include "winsock/native.h"

namespace loopfast::winsock {

namespace {

constexpr DWORD kKnownFlags = MSG_OOB | MSG_DONTROUTE | MSG_PARTIAL | MSG_INTERRUPT;

int begin(Socket& socket, DWORD flags, const sockaddr* to, int to_size, Call& call) {
    if ((flags & ~kKnownFlags) != 0)
        return WSAEOPNOTSUPP;
    if ((flags & MSG_OOB) != 0 && !socket.is_stream())
        return WSAEOPNOTSUPP;
    call.flags = ((flags & MSG_OOB) != 0 ? native::kOutOfBand : 0) |
                 ((flags & MSG_DONTROUTE) != 0 ? native::kDontRoute : 0);
    if (connecting(socket))
        return WSAENOTCONN;
    if (to != nullptr && !socket.is_stream()) {
        const int error = from_windows(to, to_size, socket.family, call.address);
        if (error != 0)
            return error;
        // Windows binds by itself; Linux too, but we keep the state.
        State fresh = State::kFresh;
        socket.state.compare_exchange_strong(fresh, State::kBound);
    }
    return 0;
}

/// Sends what the queue takes now.
int try_once(Socket& socket, Call& call) {
    size_t moved;
    const int error =
        socket.try_send(call.buffers.rest(), call.buffers.rest_count(), call.flags, &call.address, moved);
    call.buffers.advance(moved);
    return error;
}

/// One attempt; WSAEWOULDBLOCK too while others are queued before us or a backlog is.
int attempt(Socket& socket, Call& call, bool& queued) {
    Hold hold(socket.out.lock);
    queued = !socket.out.empty();
    if (socket.out.closed)
        return WSAENOTSOCK;
    if (socket.shut_send.load(std::memory_order_relaxed))
        return WSAESHUTDOWN;
    if (socket.has_backlog()) {
        const int error = socket.drain_backlog();
        if (error != 0)
            return error;
    }
    if (queued || socket.has_backlog())
        return WSAEWOULDBLOCK;
    const int error = try_once(socket, call);
    if (error != 0 || call.buffers.rest_size() == 0)
        return error;
    if (!socket.nonblocking.load(std::memory_order_relaxed))
        return WSAEWOULDBLOCK;
    // The queue was not full before this send, so all of it is taken.
    for (const iovec* part = call.buffers.rest(); part != call.buffers.rest() + call.buffers.rest_count();
         ++part)
        if (!readable(part->iov_base, part->iov_len))
            return call.buffers.done > 0 ? 0 : WSAEFAULT;
    socket.add_backlog(call.buffers.rest(), call.buffers.rest_count());
    call.buffers.advance(call.buffers.rest_size());
    return 0;
}

int send_now(Socket& socket, Call& call) {
    const DWORD timeout = socket.settings.send_timeout;
    const int64_t deadline = timeout != 0 ? deadline_of(timeout) : kNever;
    for (;;) {
        bool queued;
        const int error = attempt(socket, call, queued);
        if (error != WSAEWOULDBLOCK)
            return error != 0 && call.buffers.done > 0 ? 0 : error;
        if (socket.nonblocking.load(std::memory_order_relaxed)) {
            if (knows_events(socket))
                enable_event(socket, FD_WRITE);
            return call.buffers.done > 0 ? 0 : WSAEWOULDBLOCK;
        }
        if (queued)
            return go_behind(socket, call);
        const int waited = wait_until_ready(socket, native::kOut, deadline);
        if (waited != 0)
            return call.buffers.done > 0 && waited == WSAETIMEDOUT ? 0 : waited;
    }
}

int send_overlapped(Socket& socket, Call& call, OVERLAPPED* overlapped,
                    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    return do_overlapped(socket, call, overlapped, routine, [&] {
        int error;
        do
            error = try_once(socket, call);
        while (error == 0 && call.buffers.rest_size() > 0);
        return error;
    });
}

int send_buffers(SOCKET handle, const WSABUF* buffers, DWORD count, DWORD* sent, DWORD flags,
                 const sockaddr* to, int to_size, OVERLAPPED* overlapped,
                 LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    int error;
    Ref<Socket> socket = find_socket(handle, error);
    if (error != 0)
        return error;
    const bool is_overlapped = socket->overlapped && (overlapped != nullptr || routine != nullptr);
    if (sent == nullptr ? !is_overlapped : !writable_quickly(sent))
        return WSAEFAULT;
    Call call;
    call.work = Work::kSend;
    error = call.buffers.take(buffers, count);
    if (error == 0)
        error = begin(*socket, flags, to, to_size, call);
    if (error != 0)
        return error;
    error = is_overlapped ? send_overlapped(*socket, call, overlapped, routine) : send_now(*socket, call);
    if (error == 0 && sent != nullptr)
        *sent = static_cast<DWORD>(call.buffers.done);
    return error;
}

int send_bytes(SOCKET handle, const char* bytes, int size, int flags, const sockaddr* to, int to_size) {
    return with_one_buffer(handle, bytes, size, [&](WSABUF& one, DWORD& sent) {
        return send_buffers(handle, &one, 1, &sent, static_cast<DWORD>(flags), to, to_size, nullptr, nullptr);
    });
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSAAPI send(SOCKET s, const char* buffer, int size, int flags) {
    return send_bytes(s, buffer, size, flags, nullptr, 0);
}
LOOPFAST_API int WSAAPI sendto(SOCKET s, const char* buffer, int size, int flags, const sockaddr* to,
                               int to_size) {
    return send_bytes(s, buffer, size, flags, to, to_size);
}
LOOPFAST_API int WSAAPI WSASend(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD sent, DWORD flags,
                                LPWSAOVERLAPPED overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    return reported(send_buffers(s, buffers, count, sent, flags, nullptr, 0, overlapped, routine));
}
LOOPFAST_API int WSAAPI WSASendTo(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD sent, DWORD flags,
                                  const sockaddr* to, int to_size, LPWSAOVERLAPPED overlapped,
                                  LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    return reported(send_buffers(s, buffers, count, sent, flags, to, to_size, overlapped, routine));
}
