/* end: one end of a connection, for lanes.py, which puts them together.
 *
 *     end server     prints "listening PORT", accepts one connection and returns what comes until its end
 *     end client PORT    exchanges 100 times 1000 bytes, prints the lane, waits for a line on its input,
 * closes
 */
#include "transcript.h"

enum { MESSAGE = 1000 };

static int serve(void) {
    SOCKET listener = overlapped_socket(AF_INET), s;
    char bytes[MESSAGE];
    int got;
    set_fast_path(listener, 1);
    bind_loopback(listener, 0);
    must(listen(listener, 5) == 0, "listen");
    printf("listening %d\n", port_of(listener));
    fflush(stdout);
    s = accept(listener, NULL, NULL);
    must(s != INVALID_SOCKET, "accept");
    while ((got = recv(s, bytes, sizeof bytes, 0)) > 0) {
        if (!send_whole(s, bytes, got))
            break;
    }
    say_lane("the server", s);
    say("recv at the end", got);
    closesocket(s);
    closesocket(listener);
    return got == 0 ? 0 : 1;
}

static int call(unsigned short port) {
    SOCKET s = overlapped_socket(AF_INET);
    char out[MESSAGE], in[MESSAGE];
    int i, good = 1;
    set_fast_path(s, 1);
    must(connect_loopback(s, port) == 0, "connect");
    for (i = 0; i < MESSAGE; ++i)
        out[i] = (char)(i * 7);
    for (i = 0; i < 100 && good; ++i)
        good = send_whole(s, out, MESSAGE) && receive_whole(s, in, MESSAGE) && memcmp(in, out, MESSAGE) == 0;
    printf("%d exchanges, %s\n", i, good ? "good" : "bad");
    say_lane("the client", s);
    (void)getchar();
    shutdown(s, SD_SEND);
    say("recv at the end", recv(s, in, 1, 0));
    closesocket(s);
    return good ? 0 : 1;
}

int main(int count, char** arguments) {
    int result;
    start();
    result = count == 3 ? call((unsigned short)atoi(arguments[2])) : serve();
    WSACleanup();
    return result;
}
