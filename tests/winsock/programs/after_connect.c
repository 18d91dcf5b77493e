/* after_connect: callers that set the code too late, or take it back. It succeeds and changes nothing once a
 * connection is there or under way; both ends must have set it in time. The connection works all the same,
 * whatever its path. */
#include "transcript.h"

enum when { NEVER, BEFORE, TAKEN_BACK, AFTER };
static const char* const names[] = {"never", "before", "before, and taken back", "after"};

static void set_at(enum when when, enum when now, SOCKET s, const char* which) {
    int result;
    if (now == BEFORE && (when == BEFORE || when == TAKEN_BACK)) {
        result = set_fast_path(s, 1);
        printf("[fast] %s: set %d\n", which, result);
        if (when == TAKEN_BACK) {
            result = set_fast_path(s, 0);
            printf("[fast] %s: taken back %d\n", which, result);
        }
    }
    if (now == AFTER && when == AFTER) {
        result = set_fast_path(s, 1);
        printf("[fast] %s: set late %d, error %d\n", which, result, result == 0 ? 0 : WSAGetLastError());
    }
}

static void pair(enum when client_when, enum when listener_when) {
    SOCKET listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP), client, server;
    char out[1000], in[1000];
    int i, good = 1;
    printf("-- client: %s; listener: %s\n", names[client_when], names[listener_when]);
    set_at(listener_when, BEFORE, listener, "listener");
    bind_loopback(listener, 0);
    must(listen(listener, 5) == 0, "listen");
    client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    set_at(client_when, BEFORE, client, "client");
    say("connect", connect_loopback(client, port_of(listener)));
    set_at(client_when, AFTER, client, "client");
    server = accept(listener, NULL, NULL);
    must(server != INVALID_SOCKET, "accept");
    set_at(listener_when, AFTER, server, "accepted socket");
    for (i = 0; i < (int)sizeof out; ++i)
        out[i] = (char)i;
    for (i = 0; i < 200 && good; ++i)
        good = send_whole(client, out, sizeof out) && receive_whole(server, in, sizeof in) &&
               memcmp(out, in, sizeof in) == 0 && send_whole(server, in, sizeof in) &&
               receive_whole(client, in, sizeof in);
    printf("%d exchanges, %s\n", i, good ? "good" : "bad");
    say_lane("the connection", client);
    closesocket(server);
    say("recv at the end", recv(client, in, 1, 0));
    closesocket(client);
    closesocket(listener);
}

/* Non-blocking: the code while the connection is under way, and connect's manners. */
static void under_way(void) {
    SOCKET listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP), client, server;
    u_long on = 1;
    fd_set set;
    struct timeval limit = {10, 0};
    int result;
    printf("-- non-blocking connect\n");
    set_fast_path(listener, 1);
    bind_loopback(listener, 0);
    must(listen(listener, 5) == 0, "listen");
    client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    must(ioctlsocket(client, FIONBIO, &on) == 0, "FIONBIO");
    say("connect", connect_loopback(client, port_of(listener)));
    result = set_fast_path(client, 1);
    printf("[fast] while it connects: %d\n", result);
    FD_ZERO(&set);
    FD_SET(client, &set);
    say("select for writing", select(0, NULL, &set, NULL, &limit));
    say("connect again", connect_loopback(client, port_of(listener)));
    server = accept(listener, NULL, NULL);
    must(server != INVALID_SOCKET, "accept");
    say("send", send(client, "x", 1, 0));
    closesocket(server);
    closesocket(client);
    closesocket(listener);
}

/* Nobody listens: the same error with the code and without. */
static void refused(int fast) {
    SOCKET holder = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    SOCKET client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    printf("-- refused\n");
    bind_loopback(holder, 0); /* the port is taken, and nobody listens */
    if (fast)
        set_fast_path(client, 1);
    say("connect", connect_loopback(client, port_of(holder)));
    closesocket(client);
    closesocket(holder);
}

int main(void) {
    start();
    pair(BEFORE, BEFORE);
    pair(AFTER, BEFORE);
    pair(BEFORE, AFTER);
    pair(BEFORE, NEVER);
    pair(TAKEN_BACK, BEFORE);
    pair(BEFORE, TAKEN_BACK);
    pair(AFTER, AFTER);
    under_way();
    refused(0);
    refused(1);
    say("WSACleanup", WSACleanup());
    return 0;
}
