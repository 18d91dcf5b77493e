// port_server: a server with one thread and a completion port through the Winsock door; each client's bytes
// go back to it. `load` is its client, epoll_server the same through the POSIX door.
#include <cstring>

#include "load.h"
#include "winsock.h"

namespace {

HANDLE port;
SOCKET listener;
LPFN_ACCEPTEX accept_ex;
bench::Lane lane;

struct Client {
    OVERLAPPED receiving = {};
    OVERLAPPED sending = {};
    SOCKET socket = INVALID_SOCKET;
    ULONG have = 0;
    char bytes[bench::request_size];
    char answer[bench::request_size];
};

char addresses[2 * (sizeof(sockaddr_in) + 16)];
OVERLAPPED accepting;
Client* next;

/// Counts what came, and answers a request that is complete. @return false: the client is gone.
bool take(Client& client, DWORD size) {
    client.have += size;
    if (size == 0 || client.have < sizeof client.bytes)
        return size != 0;
    client.have = 0;
    if (client.bytes[0] == bench::check_lane)
        bench::require_lane_of_socket(client.socket, lane);
    memcpy(client.answer, client.bytes, sizeof client.answer);
    client.sending = {};
    WSABUF answer = {sizeof client.answer, client.answer};
    return WSASend(client.socket, &answer, 1, nullptr, 0, &client.sending, nullptr) == 0 ||
           WSAGetLastError() == WSA_IO_PENDING;
}

/// Receives, and answers, until a receive must wait. @return false: the client is gone.
bool go_on(Client& client) {
    for (;;) {
        client.receiving = {};
        WSABUF buffer = {static_cast<ULONG>(sizeof client.bytes) - client.have, client.bytes + client.have};
        DWORD flags = 0;
        DWORD got = 0;
        if (WSARecv(client.socket, &buffer, 1, &got, &flags, &client.receiving, nullptr) != 0)
            return WSAGetLastError() == WSA_IO_PENDING;
        if (!take(client, got))
            return false;
    }
}

void post_accept() {
    next = new Client;
    next->socket = bench::winsock_socket(lane);
    accepting = {};
    DWORD got = 0;
    // The listener is on the port with the packets of what succeeds at once.
    if (!accept_ex(listener, next->socket, addresses, 0, sizeof(sockaddr_in) + 16, sizeof(sockaddr_in) + 16,
                   &got, &accepting) &&
        WSAGetLastError() != WSA_IO_PENDING)
        bench::die_winsock("AcceptEx");
}

void end(Client* client) {
    closesocket(client->socket);
    delete client;
}

void on_packet(const OVERLAPPED_ENTRY& entry) {
    if (entry.lpOverlapped == &accepting) {
        Client* const client = next;
        setsockopt(client->socket, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, reinterpret_cast<char*>(&listener),
                   sizeof listener);
        bench::put_on_port(client->socket, port, reinterpret_cast<ULONG_PTR>(client));
        post_accept();
        if (!go_on(*client))
            end(client);
        return;
    }
    auto* const client = reinterpret_cast<Client*>(entry.lpCompletionKey);
    if (entry.lpOverlapped != &client->receiving)
        return;  // a send that had to wait
    if (!take(*client, entry.dwNumberOfBytesTransferred) || !go_on(*client))
        end(client);
}

}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    lane = arguments.expected_lane();
    bench::start_winsock();
    port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1);
    listener = bench::winsock_listen_and_announce(lane);
    GUID id = WSAID_ACCEPTEX;
    DWORD returned = 0;
    if (WSAIoctl(listener, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id, &accept_ex, sizeof accept_ex,
                 &returned, nullptr, nullptr) != 0 ||
        CreateIoCompletionPort(reinterpret_cast<HANDLE>(listener), port, 0, 0) != port)
        bench::die_winsock("AcceptEx");
    post_accept();
    for (;;) {
        OVERLAPPED_ENTRY entries[64];
        ULONG count = 0;
        if (!GetQueuedCompletionStatusEx(port, entries, 64, &count, INFINITE, FALSE))
            bench::die_winsock("GetQueuedCompletionStatusEx");
        for (ULONG i = 0; i < count; ++i)
            on_packet(entries[i]);
    }
}
