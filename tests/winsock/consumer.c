/* A Windows source in C, compiled unchanged by both compilers with -Wall -Werror, and run on Linux. */
/* MinGW's headers depend on this order. */
/* clang-format off */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <mstcpip.h>
#include <windows.h>
#include <stdio.h>
/* clang-format on */

#ifndef SIO_LOOPBACK_FAST_PATH
#define SIO_LOOPBACK_FAST_PATH 0x98000010
#endif

static int opt_in(SOCKET s) {
    DWORD on = 1;
    DWORD returned;
    return WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &on, sizeof(on), NULL, 0, &returned, NULL, NULL);
}

int main(void) {
    WSADATA data;
    SOCKET listener, client, server;
    struct sockaddr_in address;
    int size = sizeof(address);
    char bytes[8];
    fd_set reading;
    struct timeval limit;

    if (WSAStartup(MAKEWORD(2, 2), &data) != 0)
        return 1;
    listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    if (listener == INVALID_SOCKET || client == INVALID_SOCKET)
        return 2;
    if (opt_in(listener) == SOCKET_ERROR || opt_in(client) == SOCKET_ERROR)
        printf("no fast path here: %d\n", WSAGetLastError());
    ZeroMemory(&address, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr*)&address, sizeof(address)) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr*)&address, &size) != 0 ||
        connect(client, (struct sockaddr*)&address, sizeof(address)) != 0)
        return 3;
    server = accept(listener, NULL, NULL);
    if (server == INVALID_SOCKET || send(client, "hello", 5, 0) != 5)
        return 4;
    FD_ZERO(&reading);
    FD_SET(server, &reading);
    limit.tv_sec = 10;
    limit.tv_usec = 0;
    if (select(0, &reading, NULL, NULL, &limit) != 1 || !FD_ISSET(server, &reading) ||
        recv(server, bytes, 8, 0) != 5)
        return 5;
    closesocket(server);
    closesocket(client);
    closesocket(listener);
    WSACleanup();
    return 0;
}
