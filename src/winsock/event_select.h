// WSAEventSelect: what happened on a socket is recorded, each kind once until the call that re-enables it,
// and an event object is set.
#pragma once

#include "winsock/socket.h"

namespace loopfast::winsock {

/// WSAEventSelect itself; mask 0 unties.
void select_events(Socket& socket, Event* event, LONG mask);
/// Looks what is to be recorded now.
void note_events(Socket& socket);
/// A call that re-enables `kind` was made; it is recorded again at once if its condition holds.
void enable_event(Socket& socket, LONG kind);
/// `kinds` have not happened: the socket begins something new.
void forget_events(Socket& socket, LONG kinds);
/// A connect is over.
void note_connect(Socket& socket, int error);
/// The socket was accepted: its peer connected, not it.
void accepted_events(Socket& accepted);
/// An accepted socket has its listener's selection.
void inherit_selection(Socket& listener, Socket& accepted);
/// Whether FD_WRITE or FD_CONNECT waits for room.
bool wants_room(Socket& socket);
/// The socket went to another reactor. @return whether events are selected.
bool selection_moves(Socket& socket, Reactor& reactor);

inline bool has_selection(const Socket& socket) {
    return __atomic_load_n(&socket.selection.mask, __ATOMIC_RELAXED) != 0;
}
/// Whether something is selected or was, so that re-enabling means something.
inline bool knows_events(const Socket& socket) {
    return has_selection(socket) || __atomic_load_n(&socket.selection.disabled, __ATOMIC_RELAXED) != 0;
}

}  // namespace loopfast::winsock
