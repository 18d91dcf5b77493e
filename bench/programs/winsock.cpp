// winsock.cpp: see winsock.h.
#include "winsock.h"

#include <cstdio>
#include <cstdlib>

#include "loopback.h"

namespace bench {

void die_winsock(const char* what) {
    std::fprintf(stderr, "%s: error %d\n", what, WSAGetLastError());
    std::exit(1);
}

void start_winsock() {
    WSADATA data;
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        die_winsock("WSAStartup");
}

SOCKET winsock_socket(Lane lane) {
    const SOCKET s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, WSA_FLAG_OVERLAPPED);
    if (s == INVALID_SOCKET)
        die_winsock("WSASocket");
    int on = 1;
    DWORD returned = 0;
    if (lane == Lane::ring &&
        WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &on, sizeof on, nullptr, 0, &returned, nullptr, nullptr) != 0)
        die_winsock("SIO_LOOPBACK_FAST_PATH");
    if (setsockopt(s, IPPROTO_TCP, TCP_NODELAY, reinterpret_cast<char*>(&on), sizeof on) != 0)
        die_winsock("TCP_NODELAY");
    return s;
}

SOCKET winsock_listen_and_announce(Lane lane) {
    const SOCKET s = winsock_socket(lane);
    listen_and_say_where<int>(s, die_winsock);
    return s;
}

SOCKET winsock_connect_to(uint16_t port, Lane lane) {
    const SOCKET s = winsock_socket(lane);
    const sockaddr_in address = loopback(port);
    if (connect(s, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        die_winsock("connect");
    return s;
}

void put_on_port(SOCKET s, HANDLE port, ULONG_PTR key) {
    if (CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), port, key, 0) != port)
        die_winsock("CreateIoCompletionPort");
    if (!SetFileCompletionNotificationModes(reinterpret_cast<HANDLE>(s),
                                            FILE_SKIP_COMPLETION_PORT_ON_SUCCESS))
        die_winsock("SetFileCompletionNotificationModes");
}

void require_lane_of_socket(SOCKET s, Lane expected) { require_lane(loopfast_descriptor(s), expected); }

}  // namespace bench
