// winsock.h: what the measuring programs of the Winsock door share. A program sets the control code where the
// ring is expected of it, and not where the kernel is: the same program on both lanes.
#pragma once

// The order is the one that Windows' headers want.
// clang-format off
#include <winsock2.h>
#include <windows.h>
#include <mswsock.h>
#include <loopfast_winsock.h>
// clang-format on

#include "arguments.h"
#include "socket.h"

namespace bench {

[[noreturn]] void die_winsock(const char* what);

void start_winsock();
/// An overlapped socket with TCP_NODELAY, with the control code if `lane` is the ring.
SOCKET winsock_socket(Lane lane);
/// As listen_and_announce.
SOCKET winsock_listen_and_announce(Lane lane);
SOCKET winsock_connect_to(uint16_t port, Lane lane);
/// Puts a socket on a port; what succeeds at once leaves no packet.
void put_on_port(SOCKET s, HANDLE port, ULONG_PTR key);
void require_lane_of_socket(SOCKET s, Lane expected);

}  // namespace bench
