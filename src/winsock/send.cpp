// send and its relatives.
#include "winsock/blocking.h"
#include "winsock/buffers.h"
#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/native.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

namespace {

constexpr DWORD kKnownFlags = MSG_OOB | MSG_DONTROUTE | MSG_PARTIAL | MSG_INTERRUPT;

struct Send {
    Buffers buffers;
    int flags = 0;  ///< Linux's
    Address to;
    size_t sent = 0;
};

int begin(Socket& socket, DWORD flags, const sockaddr* to, int to_size, Send& call) {
    if ((flags & ~kKnownFlags) != 0)
        return WSAEOPNOTSUPP;
    if ((flags & MSG_OOB) != 0 && !socket.is_stream())
        return WSAEOPNOTSUPP;
    call.flags = ((flags & MSG_OOB) != 0 ? native::kOutOfBand : 0) |
                 ((flags & MSG_DONTROUTE) != 0 ? native::kDontRoute : 0);
    if (to != nullptr && !socket.is_stream()) {
        const int error = from_windows(to, to_size, socket.family, call.to);
        if (error != 0)
            return error;
        // Windows binds by itself; Linux too, but we keep the state.
        State fresh = State::kFresh;
        socket.state.compare_exchange_strong(fresh, State::kBound);
    }
    return 0;
}

/// One attempt; WSAEWOULDBLOCK too while others are queued before us or a backlog is.
int attempt(Socket& socket, Send& call, bool& queued) {
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
    size_t moved;
    int error = socket.try_send(call.buffers.rest(), call.buffers.rest_count(), call.flags, &call.to, moved);
    if (error != 0)
        return error;
    call.buffers.advance(moved);
    call.sent += moved;
    if (call.buffers.rest_size() == 0)
        return 0;
    if (!socket.nonblocking.load(std::memory_order_relaxed))
        return WSAEWOULDBLOCK;
    // The queue was not full before this send, so all of it is taken.
    for (const iovec* part = call.buffers.rest(); part != call.buffers.rest() + call.buffers.rest_count();
         ++part)
        if (!readable(part->iov_base, part->iov_len))
            return call.sent > 0 ? 0 : WSAEFAULT;
    socket.add_backlog(call.buffers.rest(), call.buffers.rest_count());
    call.sent += call.buffers.rest_size();
    return 0;
}

/// A blocking send while overlapped ones are queued goes behind them.
int send_behind(Socket& socket, Send& call) {
    OVERLAPPED overlapped{};
    overlapped.hEvent = reinterpret_cast<HANDLE>(UINT_PTR{1});  // no packet
    Target target;
    int error = make_target(socket, &overlapped, nullptr, target);
    if (error != 0)
        return error;
    {
        Hold hold(socket.out.lock);
        Operation* const operation = socket.new_operation(socket.out, target, Work::kSend);
        operation->set_parts(call.buffers.rest(), call.buffers.rest_count());
        operation->total = call.buffers.rest_size();
        operation->flags = call.flags;
        socket.enqueue(socket.out, operation);
        socket.run_out();
    }
    wait_for_overlapped(&overlapped, *socket.reactor());
    call.sent += overlapped.InternalHigh;
    return wsa_of_overlapped(overlapped);
}

int send_now(Socket& socket, Send& call) {
    const DWORD timeout = socket.settings.send_timeout;
    const int64_t deadline = timeout != 0 ? deadline_of(timeout) : kNever;
    for (;;) {
        bool queued;
        const int error = attempt(socket, call, queued);
        if (error != WSAEWOULDBLOCK)
            return error != 0 && call.sent > 0 ? 0 : error;
        if (socket.nonblocking.load(std::memory_order_relaxed)) {
            if (has_selection(socket))
                enable_event(socket, FD_WRITE);
            return call.sent > 0 ? 0 : WSAEWOULDBLOCK;
        }
        if (queued)
            return send_behind(socket, call);
        const int waited = wait_until_ready(socket, native::kOut, deadline);
        if (waited != 0)
            return call.sent > 0 && waited == WSAETIMEDOUT ? 0 : waited;
    }
}

int send_overlapped(Socket& socket, Send& call, OVERLAPPED* overlapped,
                    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    Target target;
    int error = make_target(socket, overlapped, routine, target);
    if (error != 0)
        return error;
    socket.out.lock.lock();
    size_t moved = 0;
    error = WSAEWOULDBLOCK;
    if (socket.out.empty() && !socket.has_backlog()) {
        do {
            error =
                socket.try_send(call.buffers.rest(), call.buffers.rest_count(), call.flags, &call.to, moved);
            if (error != 0)
                break;
            call.buffers.advance(moved);
        } while (call.buffers.rest_size() > 0);
    }
    if (error == WSAEWOULDBLOCK && !call.buffers.usable(false))
        error = WSAEFAULT;
    if (error == WSAEWOULDBLOCK) {
        Operation* const operation = socket.new_operation(socket.out, target, Work::kSend);
        operation->set_parts(call.buffers.rest(), call.buffers.rest_count());
        operation->total = call.buffers.total;
        operation->done = call.buffers.done;
        operation->flags = call.flags;
        operation->to = call.to;
        socket.enqueue(socket.out, operation);
        socket.out.lock.unlock();
        return WSA_IO_PENDING;
    }
    Operation* const operation =
        routine != nullptr && error == 0 ? socket.new_operation(socket.out, target, Work::kSend) : nullptr;
    socket.out.lock.unlock();
    if (error != 0) {
        forget(target, error);
        return error;
    }
    call.sent = call.buffers.total;
    complete(operation != nullptr ? operation->target : target, operation, 0, call.sent, 0, true);
    return 0;
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
    Send call;
    error = call.buffers.take(buffers, count);
    if (error == 0)
        error = begin(*socket, flags, to, to_size, call);
    if (error != 0)
        return error;
    if (is_overlapped)
        error = send_overlapped(*socket, call, overlapped, routine);
    else
        error = send_now(*socket, call);
    if (error == 0 && sent != nullptr)
        *sent = static_cast<DWORD>(call.sent);
    return error;
}

int send_bytes(SOCKET handle, const char* bytes, int size, int flags, const sockaddr* to, int to_size) {
    const WSABUF one{static_cast<ULONG>(size), const_cast<char*>(bytes)};
    DWORD sent = 0;
    int error = size < 0 ? WSAEFAULT : 0;
    if (int unusable = 0; error != 0 && !find_socket(handle, unusable))
        error = unusable;
    if (error == 0)
        error =
            send_buffers(handle, &one, 1, &sent, static_cast<DWORD>(flags), to, to_size, nullptr, nullptr);
    return error == 0 ? static_cast<int>(sent) : reported(error);
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
