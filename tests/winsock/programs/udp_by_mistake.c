/* udp_by_mistake: one helper for all sockets of a program, also for UDP. The code is refused there and must
 * do no harm: the datagrams go on. One caller ignores the error, the other believes it and goes on with TCP.
 */
#include "transcript.h"

static SOCKET make(int type, const char* name) {
    SOCKET s = socket(AF_INET, type, type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP);
    int result;
    must(s != INVALID_SOCKET, "socket");
    result = set_fast_path(s, 1);
    printf("[fast] control code on %s: %d, error %d\n", name, result, result == 0 ? 0 : WSAGetLastError());
    return s;
}

int main(void) {
    SOCKET a, b;
    struct sockaddr_in to, from;
    int size = sizeof from, timeout = 5000;
    char bytes[8];
    start();
    a = make(SOCK_DGRAM, "UDP");
    b = make(SOCK_DGRAM, "UDP");
    setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, (char*)&timeout, sizeof timeout);
    bind_loopback(a, 0);
    bind_loopback(b, 0);
    to = loopback(port_of(b));
    say("sendto", sendto(a, "datagram", 8, 0, (struct sockaddr*)&to, sizeof to));
    memset(&from, 0, sizeof from);
    say("recvfrom", recvfrom(b, bytes, sizeof bytes, 0, (struct sockaddr*)&from, &size));
    printf("from: %d bytes, %s\n", size, ntohs(from.sin_port) == port_of(a) ? "the sender" : "another");
    say("sendto", sendto(a, "datagram", 8, 0, (struct sockaddr*)&to, sizeof to));
    say("recv, too small", recv(b, bytes, 4, 0));
    say("connect", connect(a, (struct sockaddr*)&to, sizeof to));
    say("send", send(a, "dg", 2, 0));
    say("recv", recv(b, bytes, sizeof bytes, 0));
    closesocket(a);
    closesocket(b);
    /* A handle that is no socket any more. */
    {
        int result = set_fast_path(a, 1);
        printf("[fast] the code on a closed socket: %d, error %d\n", result, WSAGetLastError());
    }
    a = make(SOCK_STREAM, "TCP");
    { /* Wine says that it was reset. */
        int result = send(a, "x", 1, 0);
        printf("[windows] send, not connected: %d, error %d\n", result, WSAGetLastError());
    }
    say("recv, not connected", recv(a, bytes, 1, 0));
    closesocket(a);
    say("WSACleanup", WSACleanup());
    {
        int result = set_fast_path(a, 1);
        printf("[fast] the code after WSACleanup: %d, error %d\n", result, WSAGetLastError());
    }
    say("socket after WSACleanup",
        socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) == INVALID_SOCKET ? SOCKET_ERROR : 0);
    return 0;
}
