// A call that moves bytes, whichever way it moves them: what send and receive have in common. receive.cpp and
// send.cpp say how one attempt is made.
#pragma once

#include "winsock/buffers.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

struct Call {
    Buffers buffers;
    Work work;
    int flags = 0;  ///< Linux's
    bool wait_all = false;
    Address address;           ///< where to; or where from, if `from` asks
    sockaddr* from = nullptr;  ///< the program's; nullptr: not wanted
    int* from_size = nullptr;
    DWORD out_flags = 0;

    bool receives() const { return work == Work::kReceive; }
    Direction& direction(Socket& socket) const { return receives() ? socket.in : socket.out; }
};

/// Whether a connect is under way: nothing can be moved yet, and nothing waits for it.
inline bool connecting(Socket& socket) {
    return socket.state.load(std::memory_order_relaxed) == State::kConnecting && socket.is_stream() &&
           socket.look() == State::kConnecting;
}

/// Queues what is left of the call. Under the direction's lock.
void enqueue_call(Socket& socket, Call& call, Target& target, size_t total, size_t done);
/// A blocking call while overlapped ones are queued goes behind them, and waits.
int go_behind(Socket& socket, Call& call);

/// The call as an overlapped operation: `attempt` at once, under the lock, if nothing is queued before it;
/// what that leaves is queued. @return 0, WSA_IO_PENDING or an error.
template <typename Attempt>
int do_overlapped(Socket& socket, Call& call, OVERLAPPED* overlapped,
                  LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, Attempt attempt) {
    Target target;
    int error = make_target(socket, overlapped, routine, target);
    if (error != 0)
        return error;
    Direction& direction = call.direction(socket);
    Operation* operation = nullptr;
    {
        Hold hold(direction.lock);
        const bool first = direction.empty() && (call.receives() || !socket.has_backlog());
        error = first ? attempt() : WSAEWOULDBLOCK;
        if (error == WSAEWOULDBLOCK && !call.buffers.usable(call.receives()))
            error = WSAEFAULT;
        if (error == WSAEWOULDBLOCK) {
            enqueue_call(socket, call, target, call.buffers.total, call.buffers.done);
            return WSA_IO_PENDING;
        }
        if (routine != nullptr && error == 0)
            operation = socket.new_operation(direction, target, call.work);
    }
    if (error != 0) {
        forget(target, error);
        return error;
    }
    if (call.from != nullptr)
        to_windows(call.address, call.from, call.from_size);
    complete(operation != nullptr ? operation->target : target, operation, 0, call.buffers.done, 0, true);
    return 0;
}

/// send, recv and their relatives, as a call with one buffer. @return its size, or SOCKET_ERROR.
template <typename Move> int with_one_buffer(SOCKET handle, const char* bytes, int size, Move move) {
    WSABUF one{static_cast<ULONG>(size), const_cast<char*>(bytes)};
    DWORD moved = 0;
    int error = 0;
    if (size < 0) {
        find_socket(handle, error);
        error = error != 0 ? error : WSAEFAULT;
    } else {
        error = move(one, moved);
    }
    return reported(error) == 0 ? static_cast<int>(moved) : SOCKET_ERROR;
}

}  // namespace loopfast::winsock
