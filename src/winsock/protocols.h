// What WSAPROTOCOL_INFO says of a socket.
#pragma once

#include "winsock/socket.h"

namespace loopfast::winsock {

WSAPROTOCOL_INFOA protocol_info_a(const Socket& socket);
WSAPROTOCOL_INFOW protocol_info_w(const Socket& socket);

}  // namespace loopfast::winsock
