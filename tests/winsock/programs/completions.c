/* completions: every kind of completion, in C. Each operation is asked for with an event, with a routine in
 * an alertable wait, with a port, and by polling; once so that it is done at once, once so that it must wait;
 * and each result code is printed, also those of what fails and of what is cancelled. */
#include "transcript.h"

static const char* const style_names[] = {"event", "routine", "port", "polling"};
enum style { EVENT, ROUTINE, PORT, POLLING, STYLES };

static HANDLE port, event;
static SOCKET listener;
static LPFN_ACCEPTEX accept_ex;
static LPFN_CONNECTEX connect_ex;
static int routines;
static const char* mark = ""; /* in front of the lines of a conclusion: where Wine is not like Windows */

static void CALLBACK routine(DWORD error, DWORD size, LPWSAOVERLAPPED overlapped, DWORD flags) {
    ++routines;
    printf("%s  routine: error %u, %u bytes, flags %x, status %lx, high %u\n", mark, (unsigned)error,
           (unsigned)size, (unsigned)flags, (unsigned long)overlapped->Internal,
           (unsigned)overlapped->InternalHigh);
}

/* `s` is given to the port where the style is PORT: a socket cannot be taken off a port again. */
static void prepare(enum style style, SOCKET s, WSAOVERLAPPED* overlapped) {
    memset(overlapped, 0, sizeof *overlapped);
    ResetEvent(event);
    routines = 0;
    if (style == EVENT)
        overlapped->hEvent = event;
    if (style == PORT)
        CreateIoCompletionPort((HANDLE)s, port, (ULONG_PTR)0x77, 0);
    WSASetLastError(0);
}

static LPWSAOVERLAPPED_COMPLETION_ROUTINE routine_of(enum style style) {
    return style == ROUTINE ? routine : NULL;
}

/* Waits as the style has it, and prints all that can be seen of the end. */
static void conclude(enum style style, SOCKET s, WSAOVERLAPPED* overlapped) {
    DWORD size = 999, flags = 999;
    ULONG_PTR key = 0;
    WSAOVERLAPPED* got = NULL;
    BOOL good;
    int i;
    switch (style) {
    case EVENT:
        printf("%s  event: wait %u\n", mark,
               (unsigned)WSAWaitForMultipleEvents(1, &event, TRUE, 10000, FALSE));
        break;
    case ROUTINE:
        printf("%s  not alertable: %u, ran %d\n", mark, (unsigned)SleepEx(1, FALSE), routines);
        printf("%s  alertable: %x\n", mark, (unsigned)SleepEx(10000, TRUE));
        printf("%s  ran %d, then %u\n", mark, routines, (unsigned)SleepEx(1, TRUE));
        break;
    case PORT:
        good = GetQueuedCompletionStatus(port, &size, &key, &got, 10000);
        printf("%s  packet: %s, error %u, %u bytes, key %x, %s\n", mark, good ? "TRUE" : "FALSE",
               good ? 0 : (unsigned)GetLastError(), (unsigned)size, (unsigned)key,
               got == overlapped ? "the overlapped" : "another");
        good = GetQueuedCompletionStatus(port, &size, &key, &got, 0);
        printf("%s  a second packet: %s, error %u\n", mark, good ? "TRUE" : "FALSE",
               good ? 0 : (unsigned)GetLastError());
        break;
    default:
        for (i = 0; i < 10000 && !HasOverlappedIoCompleted(overlapped); ++i)
            Sleep(1);
        printf("%s  polled: %s\n", mark, HasOverlappedIoCompleted(overlapped) ? "completed" : "pending");
    }
    size = 999;
    good = WSAGetOverlappedResult(s, overlapped, &size, FALSE, &flags);
    printf("%s  result: %s, error %d, %u bytes, flags %x, status %lx, high %u\n", mark,
           good ? "TRUE" : "FALSE", good ? 0 : WSAGetLastError(), (unsigned)size, (unsigned)flags,
           (unsigned long)overlapped->Internal, (unsigned)overlapped->InternalHigh);
    fflush(stdout);
}

static void say_call(const char* what, int result) {
    printf("  %s: %d, error %d\n", what, result, result == SOCKET_ERROR ? WSAGetLastError() : 0);
}
static void say_extension(const char* what, BOOL result) {
    printf("  %s: %s, error %d\n", what, result ? "TRUE" : "FALSE", result ? 0 : WSAGetLastError());
}
static void say_pending(SOCKET s, WSAOVERLAPPED* overlapped) {
    DWORD size = 999, flags = 999;
    BOOL good = WSAGetOverlappedResult(s, overlapped, &size, FALSE, &flags);
    printf("  while it waits: %s, error %d, status %lx\n", good ? "TRUE" : "FALSE",
           good ? 0 : WSAGetLastError(), (unsigned long)overlapped->Internal);
}

/* AcceptEx and ConnectEx, each completed by the other; gives the two ends. */
static void accept_and_connect(enum style style, SOCKET* client, SOCKET* server) {
    WSAOVERLAPPED accepting, connecting;
    char addresses[2 * (sizeof(struct sockaddr_in) + 16)];
    struct sockaddr_in to = loopback(port_of(listener));
    DWORD size = 0;
    LINGER nothing = {0, 0};
    *server = overlapped_socket(AF_INET);
    *client = overlapped_socket(AF_INET);
    set_fast_path(*client, 1);
    bind_loopback(*client, 0);
    setsockopt(*client, SOL_SOCKET, SO_LINGER, (char*)&nothing, sizeof nothing);
    /* No routine can be given to either. The listener itself is on no port, except for PORT, which comes
     * last. */
    if (style != ROUTINE) {
        prepare(style, listener, &accepting);
        say_extension("AcceptEx", accept_ex(listener, *server, addresses, 0, sizeof(struct sockaddr_in) + 16,
                                            sizeof(struct sockaddr_in) + 16, &size, &accepting));
        say_pending(listener, &accepting);
        memset(&connecting, 0, sizeof connecting);
        connecting.hEvent = WSACreateEvent();
        connect_ex(*client, (struct sockaddr*)&to, sizeof to, NULL, 0, &size, &connecting);
        printf("  ConnectEx by event: wait %u\n",
               (unsigned)WSAWaitForMultipleEvents(1, &connecting.hEvent, TRUE, 10000, FALSE));
        WSACloseEvent(connecting.hEvent);
        conclude(style, listener, &accepting);
        say_call("SO_UPDATE_ACCEPT_CONTEXT", setsockopt(*server, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT,
                                                        (char*)&listener, sizeof listener));
    } else {
        closesocket(*server);
        must(connect_loopback(*client, port_of(listener)) == 0, "connect");
        *server = accept(listener, NULL, NULL);
        must(*server != INVALID_SOCKET, "accept");
        return;
    }
    say_call("SO_UPDATE_CONNECT_CONTEXT",
             setsockopt(*client, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, NULL, 0));
}

static void connect_in_style(enum style style) {
    WSAOVERLAPPED connecting;
    struct sockaddr_in to = loopback(port_of(listener));
    DWORD size = 0;
    SOCKET client, server;
    if (style == ROUTINE)
        return;
    client = overlapped_socket(AF_INET);
    printf("-- ConnectEx, %s\n", style_names[style]);
    prepare(style, client, &connecting);
    say_extension("ConnectEx, not bound",
                  connect_ex(client, (struct sockaddr*)&to, sizeof to, NULL, 0, &size, &connecting));
    bind_loopback(client, 0);
    prepare(style, client, &connecting);
    connect_ex(client, (struct sockaddr*)&to, sizeof to, (PVOID)(size_t) "hello", 5, &size, &connecting);
    conclude(style, client, &connecting);
    server = accept(listener, NULL, NULL);
    must(server != INVALID_SOCKET, "accept");
    {
        char bytes[8];
        say_call("recv of what came with it", recv(server, bytes, 5, MSG_WAITALL));
    }
    prepare(style == PORT ? POLLING : style, client, &connecting);
    say_extension("ConnectEx once more",
                  connect_ex(client, (struct sockaddr*)&to, sizeof to, NULL, 0, &size, &connecting));
    closesocket(client);
    closesocket(server);
}

static void receive(enum style style, SOCKET s, SOCKET peer) {
    WSAOVERLAPPED overlapped;
    char bytes[16], more[16];
    WSABUF buffers[2];
    DWORD size = 777, flags = 0;
    int result;
    buffers[0].len = 4;
    buffers[0].buf = bytes;
    buffers[1].len = sizeof more;
    buffers[1].buf = more;
    printf("-- WSARecv that must wait, %s\n", style_names[style]);
    prepare(style, s, &overlapped);
    say_call("WSARecv", WSARecv(s, buffers, 2, NULL, &flags, &overlapped, routine_of(style)));
    say_pending(s, &overlapped);
    say_call("the peer's send", send(peer, "abcdefg", 7, 0));
    conclude(style, s, &overlapped);
    printf("  bytes: %.4s %.3s\n", bytes, more);

    printf("-- WSARecv of what is there, %s\n", style_names[style]);
    say_call("the peer's send", send(peer, "hijkl", 5, 0));
    /* Wait until it is there. */
    do {
        u_long there = 0;
        ioctlsocket(s, FIONREAD, &there);
        if (there == 5)
            break;
        Sleep(1);
    } while (1);
    prepare(style, s, &overlapped);
    flags = 0;
    result = WSARecv(s, buffers, 2, &size, &flags, &overlapped, routine_of(style));
    say_call("WSARecv", result);
    printf("  %u bytes, flags %x\n", (unsigned)size, (unsigned)flags);
    conclude(style, s, &overlapped);

    printf("-- WSARecv with MSG_PEEK, %s\n", style_names[style]);
    say_call("the peer's send", send(peer, "xy", 2, 0));
    prepare(style, s, &overlapped);
    flags = MSG_PEEK;
    WSARecv(s, buffers, 1, NULL, &flags, &overlapped, routine_of(style));
    conclude(style, s, &overlapped);
    prepare(style, s, &overlapped);
    flags = 0;
    say_call("WSARecv", WSARecv(s, buffers, 1, NULL, &flags, &overlapped, routine_of(style)));
    conclude(style, s, &overlapped);
    printf("  bytes: %.2s\n", bytes);
}

static void transmit(enum style style, SOCKET s, SOCKET peer) {
    static char large[8 * 1024 * 1024];
    static char got[1024 * 1024];
    WSAOVERLAPPED overlapped;
    WSABUF buffers[2];
    DWORD size = 777;
    int left = (int)sizeof large, part;
    unsigned sum = CHECKSUM_START, state = 3;
    char small[8];
    size_t i;
    printf("-- WSASend of a little, %s\n", style_names[style]);
    buffers[0].len = 3;
    buffers[0].buf = (char*)(size_t) "one";
    buffers[1].len = 4;
    buffers[1].buf = (char*)(size_t) "four";
    prepare(style, s, &overlapped);
    say_call("WSASend", WSASend(s, buffers, 2, &size, 0, &overlapped, routine_of(style)));
    printf("  %u bytes\n", (unsigned)size);
    conclude(style, s, &overlapped);
    say_call("the peer's recv", recv(peer, small, 7, MSG_WAITALL));

    printf("-- WSASend of 8 MiB, then the peer reads, %s\n", style_names[style]);
    for (i = 0; i < sizeof large; ++i)
        large[i] = (char)next_random(&state);
    buffers[0].len = sizeof large;
    buffers[0].buf = large;
    prepare(style, s, &overlapped);
    WSASend(s, buffers, 1, NULL, 0, &overlapped, routine_of(style));
    while (left > 0) {
        part = recv(peer, got, sizeof got, 0);
        if (part <= 0) {
            say_call("the peer's recv", part);
            break;
        }
        left -= part;
        sum = checksum(sum, got, (size_t)part);
    }
    printf("  left %d, sums %s\n", left,
           sum == checksum(CHECKSUM_START, large, sizeof large) ? "agree" : "differ");
    conclude(style, s, &overlapped);
}

static void control(enum style style, SOCKET s) {
    WSAOVERLAPPED overlapped;
    DWORD size = 777;
    int on = 1, result;
    printf("[fast] -- control code, %s\n", style_names[style]);
    if (style == EVENT || style == POLLING) {
        memset(&overlapped, 0, sizeof overlapped);
        ResetEvent(event);
        overlapped.hEvent = style == EVENT ? event : NULL;
        result = WSAIoctl(s, SIO_LOOPBACK_FAST_PATH, &on, sizeof on, NULL, 0, &size, &overlapped, NULL);
        printf("[fast]   WSAIoctl: %d, error %d, status %lx, high %u, event %u\n", result,
               result == 0 ? 0 : WSAGetLastError(), (unsigned long)overlapped.Internal,
               (unsigned)overlapped.InternalHigh,
               style == EVENT ? (unsigned)WaitForSingleObject(event, 0) : 0);
    }
    printf("-- an unknown code, %s\n", style_names[style]);
    prepare(style, s, &overlapped);
    say_call("WSAIoctl", WSAIoctl(s, _WSAIOW(IOC_VENDOR, 0x777), &on, sizeof on, NULL, 0, &size, &overlapped,
                                  routine_of(style)));
    mark = style == EVENT ? "[windows]" : ""; /* Wine does not set the event of an ioctl that fails later */
    conclude(style, s, &overlapped);
    mark = "";
    printf("-- SIO_KEEPALIVE_VALS, %s\n", style_names[style]);
    {
        struct tcp_keepalive values = {1, 5000, 1000};
        prepare(style, s, &overlapped);
        size = 777;
        say_call("WSAIoctl", WSAIoctl(s, SIO_KEEPALIVE_VALS, &values, sizeof values, NULL, 0, &size,
                                      &overlapped, routine_of(style)));
        conclude(style, s, &overlapped);
    }
}

static void cancelled(enum style style, SOCKET s) {
    WSAOVERLAPPED overlapped;
    char bytes[4];
    WSABUF buffer;
    DWORD flags = 0;
    buffer.len = sizeof bytes;
    buffer.buf = bytes;
    printf("-- cancelled by CancelIoEx, %s\n", style_names[style]);
    prepare(style, s, &overlapped);
    say_call("WSARecv", WSARecv(s, &buffer, 1, NULL, &flags, &overlapped, routine_of(style)));
    say_extension("CancelIoEx", CancelIoEx((HANDLE)s, &overlapped));
    conclude(style, s, &overlapped);
    say_extension("CancelIoEx of nothing", CancelIoEx((HANDLE)s, &overlapped));
    printf("-- cancelled by CancelIo, %s\n", style_names[style]);
    prepare(style, s, &overlapped);
    flags = 0;
    say_call("WSARecv", WSARecv(s, &buffer, 1, NULL, &flags, &overlapped, routine_of(style)));
    say_extension("CancelIo", CancelIo((HANDLE)s));
    conclude(style, s, &overlapped);
}

static void at_the_end(enum style style, SOCKET s, SOCKET peer) {
    WSAOVERLAPPED overlapped;
    char bytes[4];
    WSABUF buffer;
    DWORD flags = 0;
    buffer.len = sizeof bytes;
    buffer.buf = bytes;
    printf("-- the end of the stream, %s\n", style_names[style]);
    prepare(style, s, &overlapped);
    say_call("WSARecv", WSARecv(s, &buffer, 1, NULL, &flags, &overlapped, routine_of(style)));
    say_call("the peer's shutdown", shutdown(peer, SD_SEND));
    conclude(style, s, &overlapped);
    say_call("shutdown", shutdown(s, SD_SEND));
    prepare(style, s, &overlapped);
    say_call("WSASend after shutdown", WSASend(s, &buffer, 1, NULL, 0, &overlapped, routine_of(style)));
}

/* Closed with a receive pending: how the completion tells of it. */
static void closed(enum style style) {
    WSAOVERLAPPED overlapped;
    char bytes[4];
    WSABUF buffer;
    DWORD flags = 0;
    SOCKET client = overlapped_socket(AF_INET), server;
    must(connect_loopback(client, port_of(listener)) == 0, "connect");
    server = accept(listener, NULL, NULL);
    must(server != INVALID_SOCKET, "accept");
    buffer.len = sizeof bytes;
    buffer.buf = bytes;
    printf("-- closed while a receive waits, %s\n", style_names[style]);
    prepare(style, client, &overlapped);
    say_call("WSARecv", WSARecv(client, &buffer, 1, NULL, &flags, &overlapped, routine_of(style)));
    say_call("closesocket", closesocket(client));
    mark = "[windows]"; /* Wine ends it with STATUS_HANDLES_CLOSED, which is no WSA_OPERATION_ABORTED */
    conclude(style, server, &overlapped);
    mark = "";
    closesocket(server);
}

int main(void) {
    static const enum style order[] = {EVENT, ROUTINE, POLLING, PORT};
    GUID id = WSAID_ACCEPTEX;
    int i;
    start();
    port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 0);
    event = WSACreateEvent();
    must(port != NULL && event != WSA_INVALID_EVENT, "a port and an event");
    listener = overlapped_socket(AF_INET);
    set_fast_path(listener, 1);
    fetch(listener, &id, &accept_ex, sizeof accept_ex);
    {
        GUID connect_id = WSAID_CONNECTEX;
        fetch(listener, &connect_id, &connect_ex, sizeof connect_ex);
    }
    bind_loopback(listener, 0);
    say("listen", listen(listener, 10));
    for (i = 0; i < STYLES; ++i) {
        enum style style = order[i];
        SOCKET client, server;
        printf("-- AcceptEx, %s\n", style_names[style]);
        accept_and_connect(style, &client, &server);
        connect_in_style(style);
        receive(style, server, client);
        say_lane("the connection", client);
        transmit(style, server, client);
        control(style, server);
        cancelled(style, server);
        closed(style);
        at_the_end(style, server, client);
        closesocket(server);
        closesocket(client);
    }
    closesocket(listener);
    CloseHandle(port);
    WSACloseEvent(event);
    say("WSACleanup", WSACleanup());
    return 0;
}
