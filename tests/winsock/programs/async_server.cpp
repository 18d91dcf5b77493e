// async_server: the asynchronous server of the Windows samples. Several AcceptEx wait at once, each for the
// first bytes of its connection; four threads take packets off one port; every byte comes back, with a
// running checksum of the stream in front of it. The clients use ConnectEx, with the first bytes in the call,
// on a port of their own.
//
// What each step returns is printed for a connection that is alone; the crowd prints only what it adds up to,
// since the order between connections is nobody's promise.
#include "transcript.h"

#include <atomic>
#include <memory>
#include <vector>

namespace {

constexpr int kThreads = 4;
constexpr int kAccepts = 8;
constexpr int kClients = 24;
constexpr int kMessages = 60;
constexpr int kMost = 8192;
constexpr DWORD kAddress = sizeof(sockaddr_in) + 16;

LPFN_ACCEPTEX accept_ex;
LPFN_GETACCEPTEXSOCKADDRS accept_addresses;
LPFN_CONNECTEX connect_ex;
LPFN_DISCONNECTEX disconnect_ex;

HANDLE port;
SOCKET listener;
std::atomic<int> accepted{0};
std::atomic<int> finished{0};
std::atomic<int> wrong{0};
std::atomic<long long> echoed{0};

/// A connection has one operation under way at any time.
struct Connection {
    OVERLAPPED overlapped = {};
    enum { kAccept, kReceive, kSend, kDisconnect } state = kAccept;
    SOCKET socket = INVALID_SOCKET;
    unsigned sum = CHECKSUM_START;
    DWORD sending = 0;
    char bytes[4 + kMost + 2 * kAddress];
};

void fail(const char* what) {
    printf("%s: error %d\n", what, WSAGetLastError());
    fflush(stdout);
    wrong.fetch_add(1);
}

void end(Connection* connection) {
    closesocket(connection->socket);
    delete connection;
    finished.fetch_add(1);
}

void post_accept() {
    auto* const connection = new Connection;
    connection->socket = overlapped_socket(AF_INET);
    set_fast_path(connection->socket, 1);
    DWORD got = 0;
    if (!accept_ex(listener, connection->socket, connection->bytes + 4, kMost, kAddress, kAddress, &got,
                   &connection->overlapped) &&
        WSAGetLastError() != ERROR_IO_PENDING)
        fail("AcceptEx");
}

void receive(Connection* connection) {
    connection->state = Connection::kReceive;
    connection->overlapped = {};
    WSABUF buffer = {kMost, connection->bytes + 4};
    DWORD flags = 0;
    if (WSARecv(connection->socket, &buffer, 1, nullptr, &flags, &connection->overlapped, nullptr) ==
            SOCKET_ERROR &&
        WSAGetLastError() != WSA_IO_PENDING) {
        fail("WSARecv");
        end(connection);
    }
}

/// The checksum of all that came on this connection so far, then what came last.
void echo(Connection* connection, DWORD size) {
    connection->state = Connection::kSend;
    connection->overlapped = {};
    connection->sum = checksum(connection->sum, connection->bytes + 4, size);
    memcpy(connection->bytes, &connection->sum, 4);
    connection->sending = size + 4;
    echoed.fetch_add(size);  // before another thread can see the end of this connection
    // In two parts, to have a gather.
    WSABUF parts[2] = {{4, connection->bytes}, {size, connection->bytes + 4}};
    if (WSASend(connection->socket, parts, 2, nullptr, 0, &connection->overlapped, nullptr) == SOCKET_ERROR &&
        WSAGetLastError() != WSA_IO_PENDING) {
        fail("WSASend");
        end(connection);
    }
}

void on_accept(Connection* connection, DWORD size) {
    if (setsockopt(connection->socket, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT,
                   reinterpret_cast<char*>(&listener), sizeof listener) != 0)
        fail("SO_UPDATE_ACCEPT_CONTEXT");
    sockaddr* local = nullptr;
    sockaddr* remote = nullptr;
    int local_size = 0;
    int remote_size = 0;
    accept_addresses(connection->bytes + 4, kMost, kAddress, kAddress, &local, &local_size, &remote,
                     &remote_size);
    sockaddr_in peer = {};
    int size_of_peer = sizeof peer;
    if (getpeername(connection->socket, reinterpret_cast<sockaddr*>(&peer), &size_of_peer) != 0)
        fail("getpeername");
    const auto* const ours = reinterpret_cast<sockaddr_in*>(local);
    const auto* const theirs = reinterpret_cast<sockaddr_in*>(remote);
    if (local_size != sizeof(sockaddr_in) || remote_size != sizeof(sockaddr_in) ||
        ours->sin_port != htons(port_of(listener)) || theirs->sin_port != peer.sin_port ||
        theirs->sin_addr.s_addr != peer.sin_addr.s_addr)
        fail("the addresses of AcceptEx");
    if (CreateIoCompletionPort(reinterpret_cast<HANDLE>(connection->socket), port, 2, 0) != port)
        fail("CreateIoCompletionPort");
    accepted.fetch_add(1);
    post_accept();
    if (size == 0)
        end(connection);
    else
        echo(connection, size);
}

DWORD WINAPI serve(void*) {
    for (;;) {
        DWORD size = 0;
        ULONG_PTR key = 0;
        OVERLAPPED* overlapped = nullptr;
        const BOOL good = GetQueuedCompletionStatus(port, &size, &key, &overlapped, INFINITE);
        if (overlapped == nullptr)
            return good ? static_cast<DWORD>(key) : GetLastError();
        auto* const connection = CONTAINING_RECORD(overlapped, Connection, overlapped);
        if (!good) {
            // The accepts that were waiting when the listener was closed.
            if (connection->state != Connection::kAccept || GetLastError() != ERROR_OPERATION_ABORTED)
                fail("a packet");
            closesocket(connection->socket);
            delete connection;
            continue;
        }
        switch (connection->state) {
        case Connection::kAccept:
            on_accept(connection, size);
            break;
        case Connection::kReceive:
            if (size == 0)
                end(connection);
            else
                echo(connection, size);
            break;
        case Connection::kSend:
            if (size != connection->sending)
                fail("a send's bytes");
            receive(connection);
            break;
        case Connection::kDisconnect:
            break;
        }
    }
}

/// A client's operation and its result, waited for by event.
struct Result {
    DWORD size;
    int error;
};
Result wait_for(SOCKET s, OVERLAPPED& overlapped) {
    DWORD size = 0;
    DWORD flags = 0;
    const BOOL good = WSAGetOverlappedResult(s, &overlapped, &size, TRUE, &flags);
    return {size, good ? 0 : WSAGetLastError()};
}

struct Client {
    unsigned seed = 0;
    bool alone = false;
    bool good = false;
    unsigned short to = 0;
    SOCKET socket = INVALID_SOCKET;
};

/// The answer to `size` bytes: as many, in one or more pieces, each after the checksum of all before its end.
bool take_answer(SOCKET s, const char* sent, int size, unsigned& sum, HANDLE event) {
    int done = 0;
    while (done < size) {
        char bytes[4 + kMost];
        int have = 0;
        // What follows a checksum may be cut anywhere: the sum tells how much belongs to it.
        for (;;) {
            OVERLAPPED overlapped = {};
            overlapped.hEvent = event;
            WSABUF buffer = {static_cast<ULONG>(4 + size - done - have), bytes + have};
            DWORD flags = 0;
            if (WSARecv(s, &buffer, 1, nullptr, &flags, &overlapped, nullptr) == SOCKET_ERROR &&
                WSAGetLastError() != WSA_IO_PENDING)
                return false;
            const Result result = wait_for(s, overlapped);
            if (result.error != 0 || result.size == 0)
                return false;
            have += static_cast<int>(result.size);
            if (have <= 4)
                continue;
            unsigned claimed;
            memcpy(&claimed, bytes, 4);
            if (memcmp(bytes + 4, sent + done, static_cast<size_t>(have) - 4) != 0)
                return false;
            const unsigned so_far = checksum(sum, bytes + 4, static_cast<size_t>(have) - 4);
            if (so_far == claimed) {
                sum = so_far;
                done += have - 4;
                break;
            }
            if (have == 4 + size - done)
                return false;
        }
    }
    return true;
}

DWORD WINAPI run_client(void* argument) {
    auto& client = *static_cast<Client*>(argument);
    std::vector<char> bytes(kMost);
    unsigned sum = CHECKSUM_START;
    HANDLE event = WSACreateEvent();
    const SOCKET s = client.socket = overlapped_socket(AF_INET);
    set_fast_path(s, 1);
    bind_loopback(s, 0);
    const sockaddr_in to = loopback(client.to);
    for (char& byte : bytes)
        byte = static_cast<char>(next_random(&client.seed));
    OVERLAPPED overlapped = {};
    overlapped.hEvent = event;
    DWORD sent = 0;
    WSASetLastError(0);
    const BOOL now = connect_ex(s, reinterpret_cast<const sockaddr*>(&to), sizeof to, bytes.data(), 100,
                                &sent, &overlapped);
    if (!now && WSAGetLastError() != ERROR_IO_PENDING) {
        fail("ConnectEx");
        return 1;
    }
    const Result connected = wait_for(s, overlapped);
    if (client.alone)
        printf("ConnectEx: %u bytes, error %d\n", static_cast<unsigned>(connected.size), connected.error);
    const int updated = setsockopt(s, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, nullptr, 0);
    if (client.alone) {
        say("SO_UPDATE_CONNECT_CONTEXT", updated);
        sockaddr_in peer;
        int size = sizeof peer;
        say("getpeername", getpeername(s, reinterpret_cast<sockaddr*>(&peer), &size));
        DWORD seconds = 77;
        size = sizeof seconds;
        say("SO_CONNECT_TIME",
            getsockopt(s, SOL_SOCKET, SO_CONNECT_TIME, reinterpret_cast<char*>(&seconds), &size));
        printf("connected for %s, in %d bytes\n", seconds < 60 ? "seconds" : "long", size);
    }
    client.good = take_answer(s, bytes.data(), 100, sum, event);
    for (int i = 0; i < kMessages && client.good; ++i) {
        const int size = 1 + static_cast<int>(next_random(&client.seed) % kMost);
        for (int k = 0; k < size; ++k)
            bytes[static_cast<size_t>(k)] = static_cast<char>(next_random(&client.seed));
        WSABUF buffer = {static_cast<ULONG>(size), bytes.data()};
        OVERLAPPED sending = {};
        sending.hEvent = event;
        if (WSASend(s, &buffer, 1, nullptr, 0, &sending, nullptr) == SOCKET_ERROR &&
            WSAGetLastError() != WSA_IO_PENDING) {
            client.good = false;
            break;
        }
        const Result result = wait_for(s, sending);
        client.good = result.error == 0 && result.size == static_cast<DWORD>(size) &&
                      take_answer(s, bytes.data(), size, sum, event);
    }
    if (client.alone)
        say_lane("the client", s);
    OVERLAPPED leaving = {};
    leaving.hEvent = event;
    if (!disconnect_ex(s, &leaving, 0, 0) && WSAGetLastError() != ERROR_IO_PENDING)
        client.good = false;
    const Result left = wait_for(s, leaving);
    if (client.alone) {
        printf("DisconnectEx: %u bytes, error %d\n", static_cast<unsigned>(left.size), left.error);
        say("send after it", send(s, "x", 1, 0));
    }
    client.good = client.good && left.error == 0;
    WSACloseEvent(event);
    closesocket(s);
    return 0;
}

int run_clients(Client* clients, int count) {
    std::vector<HANDLE> threads;
    for (int i = 0; i < count; ++i) {
        clients[i].to = port_of(listener);
        clients[i].seed = static_cast<unsigned>(i) + 1;
        threads.push_back(CreateThread(nullptr, 0, run_client, &clients[i], 0, nullptr));
    }
    printf("all clients ended: %s\n",
           WaitForMultipleObjects(static_cast<DWORD>(count), threads.data(), TRUE, 60000) == WAIT_OBJECT_0
               ? "yes"
               : "no");
    int good = 0;
    for (int i = 0; i < count; ++i) {
        CloseHandle(threads[static_cast<size_t>(i)]);
        good += clients[i].good;
    }
    return good;
}

}  // namespace

int main() {
    start();
    port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 2);
    must(port != nullptr, "CreateIoCompletionPort");
    listener = overlapped_socket(AF_INET);
    set_fast_path(listener, 1);
    GUID id = WSAID_ACCEPTEX;
    fetch(listener, &id, &accept_ex, sizeof accept_ex);
    id = WSAID_GETACCEPTEXSOCKADDRS;
    fetch(listener, &id, &accept_addresses, sizeof accept_addresses);
    id = WSAID_CONNECTEX;
    fetch(listener, &id, &connect_ex, sizeof connect_ex);
    id = WSAID_DISCONNECTEX;
    fetch(listener, &id, &disconnect_ex, sizeof disconnect_ex);
    bind_loopback(listener, 0);
    say("listen", listen(listener, SOMAXCONN));
    must(CreateIoCompletionPort(reinterpret_cast<HANDLE>(listener), port, 1, 0) == port, "associate");
    for (int i = 0; i < kAccepts; ++i)
        post_accept();
    HANDLE threads[kThreads];
    for (HANDLE& thread : threads)
        thread = CreateThread(nullptr, 0, serve, nullptr, 0, nullptr);

    Client first;
    first.alone = true;
    printf("the first client: %s\n", run_clients(&first, 1) == 1 ? "good" : "bad");
    {
        const auto clients = std::make_unique<Client[]>(kClients);
        printf("clients: %d good of %d\n", run_clients(clients.get(), kClients), kClients);
    }
    for (int i = 0; i < 500 && finished.load() < 1 + kClients; ++i)
        Sleep(10);
    printf("connections: %d accepted, %d finished, %d wrong, %lld bytes\n", accepted.load(), finished.load(),
           wrong.load(), echoed.load());
    say("close the listener", closesocket(listener));
    for (int i = 0; i < kThreads; ++i)
        say_bool("PostQueuedCompletionStatus", PostQueuedCompletionStatus(port, 0, 55, nullptr));
    printf("threads ended: %s\n",
           WaitForMultipleObjects(kThreads, threads, TRUE, 10000) == WAIT_OBJECT_0 ? "yes" : "no");
    for (HANDLE& thread : threads) {
        DWORD code = 0;
        GetExitCodeThread(thread, &code);
        printf("code %u\n", static_cast<unsigned>(code));
        CloseHandle(thread);
    }
    say_bool("close the port", CloseHandle(port));
    say("WSACleanup", WSACleanup());
    return 0;
}
