// Options, see options.cpp.
#pragma once

#include "winsock/socket.h"

namespace loopfast::winsock {

/// The sizes that the program set for a socket are set on its new descriptor too.
void copy_buffer_sizes(const Socket& socket, int fd);

}  // namespace loopfast::winsock
