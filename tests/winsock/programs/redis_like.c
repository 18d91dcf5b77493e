/* redis_like: a server with one thread and a completion port, as the Windows port of Redis has it.
 *
 * Every socket gets the control code right after it is made. Connections come by AcceptEx without a first
 * receive; readability is learned by a WSARecv of no bytes, then the bytes are taken by a non-blocking recv
 * until it would block; answers go by overlapped WSASend; the loop takes up to 64 packets at once. First one
 * client step by step, each completion printed; then sixteen at once with pipelines, and what they got must
 * be what they sent.
 */
#include "transcript.h"

enum { CLIENTS = 16, ROUNDS = 50, PIPELINE = 16, REQUEST = 32, MOST = 64 };
enum kind { ACCEPTED, READABLE, SENT, STOP };

struct operation {
    OVERLAPPED overlapped; /* first: a packet's OVERLAPPED is the operation */
    enum kind kind;
    struct client* client;
    char* bytes;
};

struct client {
    SOCKET socket;
    struct operation read;
    int sends_pending;
    int closing;
};

static HANDLE port;
static SOCKET listener;
static LPFN_ACCEPTEX accept_ex;
static char addresses[2 * (sizeof(SOCKADDR_STORAGE) + 16)];
static struct operation accept_operation;
static SOCKET accepting;
static HANDLE drained; /* the server has read all that the first client sent */
static int verbose, served, open_clients, received_bytes, sent_bytes;

static SOCKET make_socket(void) {
    SOCKET s = overlapped_socket(AF_INET);
    int result = set_fast_path(s, 1);
    if (verbose)
        printf("[fast] control code right after socket(): %d, error %d\n", result,
               result == 0 ? 0 : WSAGetLastError());
    return s;
}

static void queue_accept(void) {
    DWORD got = 0;
    BOOL done;
    accepting = make_socket();
    memset(&accept_operation, 0, sizeof accept_operation);
    accept_operation.kind = ACCEPTED;
    WSASetLastError(0);
    done = accept_ex(listener, accepting, addresses, 0, sizeof(SOCKADDR_STORAGE) + 16,
                     sizeof(SOCKADDR_STORAGE) + 16, &got, &accept_operation.overlapped);
    if (verbose)
        say_bool("AcceptEx", done);
    must(done || WSAGetLastError() == WSA_IO_PENDING, "AcceptEx");
}

static void queue_read(struct client* client) {
    WSABUF none = {0, NULL};
    DWORD flags = 0, got = 0;
    int result;
    memset(&client->read.overlapped, 0, sizeof client->read.overlapped);
    result = WSARecv(client->socket, &none, 1, &got, &flags, &client->read.overlapped, NULL);
    if (result == SOCKET_ERROR && WSAGetLastError() != WSA_IO_PENDING) {
        client->closing = 1;
        return;
    }
}

static void answer(struct client* client, const char* bytes, int size) {
    struct operation* operation = (struct operation*)calloc(1, sizeof *operation);
    WSABUF buffer;
    DWORD sent = 0;
    int result;
    operation->kind = SENT;
    operation->client = client;
    operation->bytes = (char*)malloc((size_t)size);
    memcpy(operation->bytes, bytes, (size_t)size);
    buffer.buf = operation->bytes;
    buffer.len = (ULONG)size;
    result = WSASend(client->socket, &buffer, 1, &sent, 0, &operation->overlapped, NULL);
    must(result == 0 || WSAGetLastError() == WSA_IO_PENDING, "WSASend");
    ++client->sends_pending;
}

static void finish(struct client* client) {
    if (!client->closing || client->sends_pending != 0)
        return;
    if (verbose)
        say("server closesocket", closesocket(client->socket));
    else
        closesocket(client->socket);
    free(client);
    --open_clients;
    ++served;
}

static void on_accepted(const OVERLAPPED_ENTRY* entry) {
    struct client* client = (struct client*)calloc(1, sizeof *client);
    u_long on = 1;
    int result;
    client->socket = accepting;
    client->read.kind = READABLE;
    client->read.client = client;
    result =
        setsockopt(client->socket, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, (char*)&listener, sizeof listener);
    if (verbose) {
        printf("accepted: %u bytes, status %lx\n", (unsigned)entry->dwNumberOfBytesTransferred,
               (unsigned long)entry->lpOverlapped->Internal);
        say("SO_UPDATE_ACCEPT_CONTEXT", result);
    }
    must(ioctlsocket(client->socket, FIONBIO, &on) == 0, "FIONBIO");
    must(CreateIoCompletionPort((HANDLE)client->socket, port, (ULONG_PTR)client, 0) == port, "associate");
    ++open_clients;
    queue_accept();
    queue_read(client);
}

static void on_readable(struct client* client, const OVERLAPPED_ENTRY* entry) {
    char bytes[4096];
    if (verbose)
        printf("readable: %u bytes, status %lx\n", (unsigned)entry->dwNumberOfBytesTransferred,
               (unsigned long)entry->lpOverlapped->Internal);
    for (;;) {
        int got = recv(client->socket, bytes, sizeof bytes, 0);
        if (verbose)
            say("recv", got);
        if (got == SOCKET_ERROR && WSAGetLastError() == WSAEWOULDBLOCK) {
            SetEvent(drained);
            break;
        }
        if (got <= 0) {
            client->closing = 1;
            finish(client);
            return;
        }
        received_bytes += got;
        answer(client, bytes, got);
    }
    queue_read(client);
    if (client->closing)
        finish(client);
}

static void on_sent(struct operation* operation, const OVERLAPPED_ENTRY* entry) {
    struct client* client = operation->client;
    if (verbose)
        printf("sent: %u bytes, status %lx\n", (unsigned)entry->dwNumberOfBytesTransferred,
               (unsigned long)entry->lpOverlapped->Internal);
    sent_bytes += (int)entry->dwNumberOfBytesTransferred;
    free(operation->bytes);
    free(operation);
    --client->sends_pending;
    finish(client);
}

static void serve(int clients) {
    OVERLAPPED_ENTRY entries[MOST];
    int stop = 0;
    served = 0;
    while (served < clients && !stop) {
        ULONG count = 0, i;
        if (!GetQueuedCompletionStatusEx(port, entries, MOST, &count, 20000, FALSE)) {
            say_bool("GetQueuedCompletionStatusEx", FALSE);
            exit(1);
        }
        for (i = 0; i < count; ++i) {
            struct operation* operation = (struct operation*)entries[i].lpOverlapped;
            if (operation->kind == ACCEPTED)
                on_accepted(&entries[i]);
            else if (operation->kind == READABLE)
                on_readable(operation->client, &entries[i]);
            else
                on_sent(operation, &entries[i]);
        }
    }
}

struct run {
    unsigned short port;
    int rounds, pipeline;
    unsigned seed;
    int good;
    SOCKET socket;
};

static DWORD WINAPI run_client(void* argument) {
    struct run* run = (struct run*)argument;
    char out[PIPELINE * REQUEST], in[PIPELINE * REQUEST];
    int round, i, size = run->pipeline * REQUEST;
    SOCKET s = overlapped_socket(AF_INET);
    set_fast_path(s, 1);
    if (connect_loopback(s, run->port) != 0)
        return 1;
    run->good = 1;
    for (round = 0; round < run->rounds && run->good; ++round) {
        for (i = 0; i < size; ++i)
            out[i] = (char)next_random(&run->seed);
        run->good =
            send_whole(s, out, size) && receive_whole(s, in, size) && memcmp(in, out, (size_t)size) == 0;
    }
    WaitForSingleObject(drained, INFINITE);
    shutdown(s, SD_SEND);
    run->good = run->good && recv(s, in, 1, 0) == 0;
    run->socket = s; /* open for the question of its lane */
    return 0;
}

int main(void) {
    GUID id = WSAID_ACCEPTEX;
    struct run runs[CLIENTS];
    HANDLE threads[CLIENTS];
    int i, good = 0;
    start();
    verbose = 1;
    drained = CreateEventA(NULL, TRUE, FALSE, NULL);
    must(drained != NULL, "CreateEvent");
    port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
    must(port != NULL, "CreateIoCompletionPort");
    listener = make_socket();
    bind_loopback(listener, 0);
    say("listen", listen(listener, 511));
    must(CreateIoCompletionPort((HANDLE)listener, port, 1, 0) == port, "associate the listener");
    fetch(listener, &id, &accept_ex, sizeof accept_ex);
    queue_accept();

    memset(runs, 0, sizeof runs);
    runs[0].port = port_of(listener);
    runs[0].rounds = 1;
    runs[0].pipeline = 1;
    threads[0] = CreateThread(NULL, 0, run_client, &runs[0], 0, NULL);
    serve(1);
    WaitForSingleObject(threads[0], INFINITE);
    CloseHandle(threads[0]);
    printf("first client: %s\n", runs[0].good ? "good" : "bad");
    closesocket(runs[0].socket);

    verbose = 0;
    received_bytes = sent_bytes = 0;
    for (i = 0; i < CLIENTS; ++i) {
        memset(&runs[i], 0, sizeof runs[i]);
        runs[i].port = port_of(listener);
        runs[i].rounds = ROUNDS;
        runs[i].pipeline = PIPELINE;
        runs[i].seed = (unsigned)i;
        threads[i] = CreateThread(NULL, 0, run_client, &runs[i], 0, NULL);
    }
    serve(CLIENTS);
    for (i = 0; i < CLIENTS; ++i) {
        WaitForSingleObject(threads[i], INFINITE);
        CloseHandle(threads[i]);
        if (i == 0)
            say_lane("one client", runs[i].socket);
        good += runs[i].good;
        closesocket(runs[i].socket);
    }
    printf("clients: %d good of %d, %d bytes received, %d sent, %d left\n", good, CLIENTS, received_bytes,
           sent_bytes, open_clients);
    say("close the accepting socket", closesocket(accepting));
    say("close the listener", closesocket(listener));
    {
        OVERLAPPED_ENTRY entry;
        ULONG count = 0;
        BOOL more = GetQueuedCompletionStatusEx(port, &entry, 1, &count, 5000, FALSE);
        say_bool("the packet of the accept that was pending", more);
        if (more)
            printf("its status: %lx, the operation: %s\n", (unsigned long)entry.lpOverlapped->Internal,
                   entry.lpOverlapped == &accept_operation.overlapped ? "the accept" : "another");
    }
    say_bool("close the port", CloseHandle(port));
    say("WSACleanup", WSACleanup());
    return 0;
}
