// options: a client that sets what clients set and stops at the first error, then reads it back.
//
// Before connecting, after connecting, and on what accept returned; with the control code set all along.
#include "transcript.h"

namespace {

struct Step {
    const char* name;
    int level;
    int option;
    int value;
};

constexpr Step kListenerSteps[] = {
    {"SO_EXCLUSIVEADDRUSE", SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1},
    {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 131072},
};
constexpr Step kClientSteps[] = {
    {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1}, {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1},
    {"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 65536},  {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 65536},
    {"SO_RCVTIMEO", SOL_SOCKET, SO_RCVTIMEO, 50}, {"SO_SNDTIMEO", SOL_SOCKET, SO_SNDTIMEO, 5000},
    {"IP_TTL", IPPROTO_IP, IP_TTL, 64},           {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 0},
};

/// @return false at the first error, as such clients do.
template <size_t count> bool apply(SOCKET s, const Step (&steps)[count]) {
    for (const Step& step : steps) {
        int value = step.value;
        const int set = setsockopt(s, step.level, step.option, reinterpret_cast<char*>(&value), sizeof value);
        if (set != 0) {
            printf("%s: error %d; stopped\n", step.name, WSAGetLastError());
            return false;
        }
        value = -1;
        int size = sizeof value;
        const int got = getsockopt(s, step.level, step.option, reinterpret_cast<char*>(&value), &size);
        printf("%s: set, read %d, ", step.name, got);
        if (size == 1)
            value &= 0xff;
        printf("%s\n", got != 0 ? "failed" : value == step.value ? "the same" : "another value");
        fflush(stdout);
    }
    return true;
}

bool lingers(SOCKET s) {
    linger value = {1, 3};
    if (setsockopt(s, SOL_SOCKET, SO_LINGER, reinterpret_cast<char*>(&value), sizeof value) != 0)
        return false;
    value = {};
    int size = sizeof value;
    const int got = getsockopt(s, SOL_SOCKET, SO_LINGER, reinterpret_cast<char*>(&value), &size);
    printf("SO_LINGER: read %d, %d bytes, on %d, %d seconds\n", got, size, value.l_onoff, value.l_linger);
    BOOL off = TRUE;
    say("SO_DONTLINGER", setsockopt(s, SOL_SOCKET, SO_DONTLINGER, reinterpret_cast<char*>(&off), sizeof off));
    size = sizeof value;
    getsockopt(s, SOL_SOCKET, SO_LINGER, reinterpret_cast<char*>(&value), &size);
    printf("SO_LINGER after it: on %d\n", value.l_onoff);
    return true;
}

void ask(SOCKET s, const char* name, int level, int option) {
    int value = 0;
    int size = sizeof value;
    const int got = getsockopt(s, level, option, reinterpret_cast<char*>(&value), &size);
    printf("%s: %d, error %d, value %d\n", name, got, got == 0 ? 0 : WSAGetLastError(), value);
}

void wrong(SOCKET s) {
    int value = 1;
    auto* const bytes = reinterpret_cast<char*>(&value);
    say("a null value", setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, nullptr, sizeof value));
    say("a short SO_LINGER", setsockopt(s, SOL_SOCKET, SO_LINGER, bytes, 2));
    say("an unknown option", setsockopt(s, SOL_SOCKET, 0x5555, bytes, sizeof value));
    say("an unknown level", setsockopt(s, 0x5555, 1, bytes, sizeof value));
    int size = sizeof value;
    say("asking an unknown option", getsockopt(s, SOL_SOCKET, 0x5555, bytes, &size));
    say("not a socket",
        setsockopt(static_cast<SOCKET>(0x7ff0), SOL_SOCKET, SO_KEEPALIVE, bytes, sizeof value));
}

void second_listener(unsigned short port) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    const sockaddr_in address = loopback(port);
    say("bind to the exclusive address",
        bind(s, reinterpret_cast<const sockaddr*>(&address), sizeof address));
    closesocket(s);
}

}  // namespace

int main() {
    start();
    const SOCKET listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    set_fast_path(listener, 1);
    printf("-- listener\n");
    if (!apply(listener, kListenerSteps))
        return 1;
    bind_loopback(listener, 0);
    say("listen", listen(listener, 5));
    ask(listener, "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN);
    ask(listener, "SO_TYPE", SOL_SOCKET, SO_TYPE);
    second_listener(port_of(listener));

    const SOCKET client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    set_fast_path(client, 1);
    printf("-- client, before connect\n");
    if (!apply(client, kClientSteps) || !lingers(client))
        return 1;
    ask(client, "SO_CONNECT_TIME", SOL_SOCKET, SO_CONNECT_TIME);
    say("connect", connect_loopback(client, port_of(listener)));
    const SOCKET server = accept(listener, nullptr, nullptr);
    must(server != INVALID_SOCKET, "accept");
    char byte = 'x';
    say("send", send(client, &byte, 1, 0));
    say("recv", recv(server, &byte, 1, 0));
    say("send", send(server, &byte, 1, 0));
    say("recv", recv(client, &byte, 1, 0));
    printf("-- client, connected\n");
    if (!apply(client, kClientSteps) || !lingers(client))
        return 1;
    printf("-- accepted\n");
    ask(server, "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN);
    ask(server, "SO_RCVBUF, from the listener", SOL_SOCKET, SO_RCVBUF);
    if (!apply(server, kClientSteps) || !lingers(server))
        return 1;
    exchange(client, server);
    say_lane("the connection", client);
    ask(client, "SO_ERROR", SOL_SOCKET, SO_ERROR);
    say("recv of nothing, SO_RCVTIMEO", recv(client, &byte, 1, 0));
    wrong(client);
    constexpr Step kInline[] = {{"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1}};
    if (!apply(client, kInline))
        return 1;
    say("close the client", closesocket(client));
    say("recv at the end", recv(server, &byte, 1, 0));
    say("close the server", closesocket(server));
    say("close the listener", closesocket(listener));
    say("WSACleanup", WSACleanup());
    return 0;
}
