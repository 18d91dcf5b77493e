// Making and connecting sockets, for the public functions that do it in several ways.
#pragma once

#include "winsock/socket.h"

namespace loopfast::winsock {

/// A socket object for a descriptor. @return its handle; on an error the descriptor is closed.
SOCKET adopt(int fd, int family, int type, int protocol, bool overlapped, int& error);
int bind_socket(Socket& socket, const Address& address);
/// @return 0, WSAEWOULDBLOCK (under way) or an error.
int begin_connect(Socket& socket, const Address& address);
/// Waits for a connect that is under way. @return 0, WSAETIMEDOUT, WSAEINTR or its error.
int finish_connect(Socket& socket, int64_t deadline);
int name_of_socket(Socket& socket, bool peer, Address& address);
/// A socket begins anew, not bound, with a fresh descriptor that has its options. @return 0 or an error.
int renew(Socket& socket);

}  // namespace loopfast::winsock
