/* transcript.h: what the programs of this folder share: how they print, and how they set the control code.
 *
 * Each program is one source for Windows and for this library. It prints what calls returned, and nothing
 * that depends on time, ports or handles. Lines that begin with "[fast]" are about the control code, which
 * Wine lacks; lines that begin with "[windows]" say what Windows does where Wine is known to do something
 * else. Both kinds are left out when a transcript is compared with Wine's (run.py).
 */
#ifndef TRANSCRIPT_H
#define TRANSCRIPT_H

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
/* The order is the one that Windows' headers want. */
/* clang-format off */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <mswsock.h>
#include <mstcpip.h>
/* clang-format on */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef LOOPFAST_WINSOCK_WINSOCK2_H
#include <loopfast.h>
#include <loopfast_winsock.h>
#endif

static inline void say(const char* what, int result) {
    int error = result == SOCKET_ERROR ? WSAGetLastError() : 0;
    printf("%s: %d, error %d\n", what, result, error);
    fflush(stdout);
}

/* A BOOL and GetLastError(). */
static inline void say_bool(const char* what, BOOL result) {
    unsigned error = result ? 0 : (unsigned)GetLastError();
    printf("%s: %s, error %u\n", what, result ? "TRUE" : "FALSE", error);
    fflush(stdout);
}

/* For what a program cannot go on without. */
static inline void must(int good, const char* what) {
    if (good)
        return;
    printf("%s failed: error %d\n", what, WSAGetLastError());
    fflush(stdout);
    exit(1);
}

static inline void start(void) {
    WSADATA data;
    int error = WSAStartup(MAKEWORD(2, 2), &data);
    printf("WSAStartup: %d, version %d.%d\n", error, LOBYTE(data.wVersion), HIBYTE(data.wVersion));
    must(error == 0, "WSAStartup");
}

static inline int set_fast_path(SOCKET s, int on) {
    int value = on;
    DWORD returned = 0;
    return WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &value, sizeof value, NULL, 0, &returned, NULL, NULL);
}

/* Which way the bytes of a connection go, where that can be asked: after some traffic, since the ends must
 * prove to each other who they are before they leave the kernel's way. */
static inline void say_lane(const char* what, SOCKET s) {
#ifdef LOOPFAST_WINSOCK_WINSOCK2_H
    int lane = loopfast_lane(loopfast_descriptor(s));
    printf("[fast] lane of %s: %s\n", what,
           lane == LOOPFAST_LANE_RING     ? "ring"
           : lane == LOOPFAST_LANE_KERNEL ? "kernel"
                                          : "another");
#else
    (void)s;
    printf("[fast] lane of %s: unknown\n", what);
#endif
    fflush(stdout);
}

static inline SOCKET overlapped_socket(int family) {
    SOCKET s = WSASocketW(family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
    must(s != INVALID_SOCKET, "WSASocket");
    return s;
}

static inline struct sockaddr_in loopback(unsigned short port) {
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

static inline void bind_loopback(SOCKET s, unsigned short port) {
    struct sockaddr_in address = loopback(port);
    must(bind(s, (struct sockaddr*)&address, sizeof address) == 0, "bind");
}

static inline unsigned short port_of(SOCKET s) {
    struct sockaddr_in address;
    int size = sizeof address;
    must(getsockname(s, (struct sockaddr*)&address, &size) == 0, "getsockname");
    return ntohs(address.sin_port);
}

/* A blocking connection to the loopback address. */
static inline int connect_loopback(SOCKET s, unsigned short port) {
    struct sockaddr_in address = loopback(port);
    return connect(s, (struct sockaddr*)&address, sizeof address);
}

/* All of a buffer, on a blocking socket. 0 when the stream ended or failed. */
static inline int send_whole(SOCKET s, const char* bytes, int size) {
    while (size > 0) {
        int sent = send(s, bytes, size, 0);
        if (sent <= 0)
            return 0;
        bytes += sent;
        size -= sent;
    }
    return 1;
}

static inline int receive_whole(SOCKET s, char* bytes, int size) {
    while (size > 0) {
        int got = recv(s, bytes, size, 0);
        if (got <= 0)
            return 0;
        bytes += got;
        size -= got;
    }
    return 1;
}

/* A byte there and back, many times, over a blocking pair of one thread. */
static inline void exchange(SOCKET a, SOCKET b) {
    char byte = 'e';
    int i, good = 1;
    for (i = 0; i < 100 && good; ++i)
        good = send_whole(a, &byte, 1) && receive_whole(b, &byte, 1) && send_whole(b, &byte, 1) &&
               receive_whole(a, &byte, 1);
    printf("%d exchanges of a byte, %s\n", i, good ? "good" : "bad");
}

/* FNV-1a, over what has been summed so far. */
static inline unsigned checksum(unsigned sum, const char* bytes, size_t size) {
    size_t i;
    for (i = 0; i < size; ++i)
        sum = (sum ^ (unsigned char)bytes[i]) * 16777619u;
    return sum;
}
#define CHECKSUM_START 2166136261u

static inline unsigned next_random(unsigned* state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* A function that must be asked for by its identifier. */
static inline void fetch(SOCKET s, const GUID* which, void* function, DWORD size) {
    GUID id = *which;
    DWORD returned = 0;
    must(WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id, function, size, &returned, NULL,
                  NULL) == 0,
         "SIO_GET_EXTENSION_FUNCTION_POINTER");
}

#endif
