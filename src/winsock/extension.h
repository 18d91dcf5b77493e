// The inner side of AcceptEx, for the queues.
#pragma once

#include "winsock/socket.h"

namespace loopfast::winsock {

/// Tries to accept for the operation at the head of a listener's queue, under its in.lock. @return 0 when it
/// is over or, with `moved_on`, has bytes to wait for; WSAEWOULDBLOCK; or an error.
int accept_pending(Socket& listener, Operation& operation, bool& moved_on);
/// The operation goes on in the queue of the socket that it accepted into.
void continue_accept(Socket& listener, Operation* operation);
/// Its first bytes have come: the addresses go behind them.
void write_accept_addresses(Socket& accepted, Operation& operation);
/// Ends what AcceptEx of this listener has waiting for bytes.
int cancel_accepts_of(UINT_PTR listener, uint64_t issuer, const OVERLAPPED* overlapped);
/// The socket that they would accept into is closed: they end.
void cancel_accepts_into(const Socket& accepted);

/// DisconnectEx, when its turn has come.
int disconnect_now(Socket& socket, bool reuse);

/// The function of a WSAID, or nullptr.
void* extension_function(const GUID& name);

}  // namespace loopfast::winsock
