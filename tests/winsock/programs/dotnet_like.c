/* dotnet_like: the code as managed programs pass it, -1744830448, the option as a byte array, and the word
 * for the returned bytes not initialised; the error is ignored or believed. Over IPv4, IPv6 and a dual-stack
 * pair. */
#include "transcript.h"

enum { FAST_PATH = -1744830448 };

static int io_control(SOCKET s, int code, const unsigned char* in, int in_size, unsigned char* out,
                      int out_size, int* returned) {
    DWORD got; /* as the stack had it */
    int result;
    memset(&got, 0xa5, sizeof got);
    result =
        WSAIoctl(s, (DWORD)code, (void*)(size_t)in, (DWORD)in_size, out, (DWORD)out_size, &got, NULL, NULL);
    *returned = (int)got;
    return result;
}

static void set(SOCKET s, const char* which) {
    unsigned char one[4] = {1, 0, 0, 0};
    int returned;
    int result = io_control(s, FAST_PATH, one, 4, NULL, 0, &returned);
    printf("[fast] IOControl(-1744830448) on the %s: %d, error %d, returned %d\n", which, result,
           result == 0 ? 0 : WSAGetLastError(), returned);
}

static void keep_alive(SOCKET s) {
    /* Another code that managed programs pass as bytes: on, 10 s, 1 s. */
    unsigned char values[12] = {1, 0, 0, 0, 0x10, 0x27, 0, 0, 0xe8, 3, 0, 0};
    int returned;
    say("IOControl(KeepAliveValues)", io_control(s, (int)SIO_KEEPALIVE_VALS, values, 12, NULL, 0, &returned));
    printf("returned %d\n", returned);
    say("IOControl(KeepAliveValues), short",
        io_control(s, (int)SIO_KEEPALIVE_VALS, values, 8, NULL, 0, &returned));
}

static void non_blocking(SOCKET s) {
    unsigned char one[4] = {1, 0, 0, 0}, bytes[4];
    int returned;
    say("IOControl(NonBlockingIO)", io_control(s, (int)FIONBIO, one, 4, NULL, 0, &returned));
    say("IOControl(NonBlockingIO), short", io_control(s, (int)FIONBIO, one, 2, NULL, 0, &returned));
    say("recv", recv(s, (char*)bytes, 1, 0));
    memset(bytes, 0x77, sizeof bytes);
    say("IOControl(DataToRead)", io_control(s, (int)FIONREAD, NULL, 0, bytes, 4, &returned));
    printf("returned %d: %d %d %d %d\n", returned, bytes[0], bytes[1], bytes[2], bytes[3]);
}

static void pair(int family, int dual) {
    SOCKADDR_STORAGE storage;
    int size, off = 0;
    struct sockaddr_in6* six = (struct sockaddr_in6*)&storage;
    struct sockaddr_in* four = (struct sockaddr_in*)&storage;
    SOCKET listener = socket(family, SOCK_STREAM, IPPROTO_TCP);
    SOCKET client = socket(family, SOCK_STREAM, IPPROTO_TCP), server;
    char byte = 'a';
    printf("-- %s%s\n", family == AF_INET ? "IPv4" : "IPv6", dual ? ", dual-stack" : "");
    must(listener != INVALID_SOCKET && client != INVALID_SOCKET, "socket");
    if (dual) {
        say("IPV6_V6ONLY", setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, (char*)&off, sizeof off));
        say("IPV6_V6ONLY", setsockopt(client, IPPROTO_IPV6, IPV6_V6ONLY, (char*)&off, sizeof off));
    }
    set(listener, "listener");
    set(client, "client");
    memset(&storage, 0, sizeof storage);
    storage.ss_family = (unsigned short)family;
    size = family == AF_INET ? (int)sizeof *four : (int)sizeof *six;
    if (family == AF_INET)
        four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (!dual)
        six->sin6_addr.s6_addr[15] = 1;
    say("bind", bind(listener, (struct sockaddr*)&storage, size));
    say("listen", listen(listener, 5));
    must(getsockname(listener, (struct sockaddr*)&storage, &size) == 0, "getsockname");
    if (dual) { /* ::ffff:127.0.0.1 */
        six->sin6_addr.s6_addr[10] = six->sin6_addr.s6_addr[11] = 0xff;
        six->sin6_addr.s6_addr[12] = 127;
        six->sin6_addr.s6_addr[15] = 1;
    }
    say("connect", connect(client, (struct sockaddr*)&storage, size));
    server = accept(listener, NULL, NULL);
    must(server != INVALID_SOCKET, "accept");
    say("send", send(client, &byte, 1, 0));
    say("recv", recv(server, &byte, 1, 0));
    say("send", send(server, &byte, 1, 0));
    say("recv", recv(client, &byte, 1, 0));
    exchange(client, server);
    say_lane("the pair", client);
    keep_alive(client);
    non_blocking(client);
    set(client, "connected client");
    closesocket(client);
    say("recv at the end", recv(server, &byte, 1, 0));
    closesocket(server);
    closesocket(listener);
}

int main(void) {
    unsigned char one[4] = {1, 0, 0, 0};
    int returned;
    start();
    printf("the code as an int: %d\n", (int)SIO_LOOPBACK_FAST_PATH);
    printf("the same: %s\n", (DWORD)FAST_PATH == (DWORD)SIO_LOOPBACK_FAST_PATH ? "yes" : "no");
    pair(AF_INET, 0);
    pair(AF_INET6, 0);
    pair(AF_INET6, 1);
    {
        SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
        int result = io_control(s, FAST_PATH, one, 1, NULL, 0, &returned);
        printf("[fast] a byte instead of four: %d, error %d\n", result, result == 0 ? 0 : WSAGetLastError());
        say("an unknown code", io_control(s, (int)_WSAIOW(IOC_VENDOR, 0x777), one, 4, NULL, 0, &returned));
        closesocket(s);
    }
    say("WSACleanup", WSACleanup());
    return 0;
}
