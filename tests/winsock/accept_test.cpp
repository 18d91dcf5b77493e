// AcceptEx, ConnectEx, DisconnectEx, WSAAccept with its condition function, and what accepted sockets
// inherit.
#include "common.h"

namespace test {
namespace {

class Accept : public Winsock {
protected:
    static constexpr DWORD kArea = sizeof(sockaddr_in) + 16;
    struct Call {
        char output[512] = {};
        DWORD received = 0;
        OVERLAPPED overlapped{};
    };
    static BOOL accept_ex(SOCKET listener, SOCKET into, Call& call, DWORD data = 0) {
        const auto function = extension<LPFN_ACCEPTEX>(listener, WSAID_ACCEPTEX);
        return function(listener, into, call.output, data, kArea, kArea, &call.received, &call.overlapped);
    }
    static void must_pend(BOOL result) {
        EXPECT_FALSE(result);
        EXPECT_EQ(static_cast<DWORD>(ERROR_IO_PENDING), GetLastError());
    }
    static BOOL result_of(SOCKET s, OVERLAPPED& overlapped, DWORD& bytes) {
        DWORD flags;
        return WSAGetOverlappedResult(s, &overlapped, &bytes, TRUE, &flags);
    }
    static SOCKET client_of(SOCKET listener, bool fast = true) {
        const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
        if (fast) {
            EXPECT_EQ(0, opt_in(client));
        }
        const sockaddr_in address = name_of(listener);
        EXPECT_EQ(0, connect(client, generic(address), sizeof address)) << WSAGetLastError();
        return client;
    }
    static void update(SOCKET accepted, SOCKET listener) {
        ASSERT_EQ(0, setsockopt(accepted, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT,
                                reinterpret_cast<const char*>(&listener), sizeof listener))
            << WSAGetLastError();
    }
};

TEST_F(Accept, AcceptExTakesThePathFromTheListener) {
    const SOCKET listener = listening_socket();
    const SOCKET accepted = socket(AF_INET, SOCK_STREAM, 0);
    Call call;
    must_pend(accept_ex(listener, accepted, call));
    const SOCKET client = client_of(listener);
    DWORD bytes = 9;
    ASSERT_TRUE(result_of(listener, call.overlapped, bytes));
    EXPECT_EQ(0u, bytes);
    settle(client, accepted);
    EXPECT_TRUE(on_ring(client));
    EXPECT_TRUE(on_ring(accepted));

    const auto addresses = extension<LPFN_GETACCEPTEXSOCKADDRS>(listener, WSAID_GETACCEPTEXSOCKADDRS);
    sockaddr* local = nullptr;
    sockaddr* remote = nullptr;
    int local_size = 0;
    int remote_size = 0;
    addresses(call.output, 0, kArea, kArea, &local, &local_size, &remote, &remote_size);
    ASSERT_NE(nullptr, remote);
    EXPECT_EQ(static_cast<int>(sizeof(sockaddr_in)), remote_size);
    EXPECT_EQ(name_of(client).sin_port, reinterpret_cast<sockaddr_in*>(remote)->sin_port);
    EXPECT_EQ(name_of(listener).sin_port, reinterpret_cast<sockaddr_in*>(local)->sin_port);
    closesocket(client);
    closesocket(accepted);
    closesocket(listener);
}

TEST_F(Accept, AcceptExSocketGetsOptionsAtUpdate) {
    const SOCKET listener = listening_socket();
    const DWORD on = 1;
    const auto keeps_alive = [](SOCKET s) {
        DWORD value = 9;
        int size = sizeof value;
        EXPECT_EQ(0, getsockopt(s, SOL_SOCKET, SO_KEEPALIVE, reinterpret_cast<char*>(&value), &size));
        return value;
    };
    ASSERT_EQ(0,
              setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, reinterpret_cast<const char*>(&on), sizeof on));
    const SOCKET accepted = socket(AF_INET, SOCK_STREAM, 0);
    Call call;
    must_pend(accept_ex(listener, accepted, call));
    const SOCKET client = client_of(listener);
    DWORD bytes;
    ASSERT_TRUE(result_of(listener, call.overlapped, bytes));
    EXPECT_EQ(0u, keeps_alive(accepted)) << "its own, until then";
    sockaddr_in name;
    int size = sizeof name;
    EXPECT_EQ(SOCKET_ERROR, getpeername(accepted, reinterpret_cast<sockaddr*>(&name), &size));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, shutdown(accepted, SD_SEND));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    update(accepted, listener);
    EXPECT_EQ(1u, keeps_alive(accepted));
    EXPECT_EQ(0, getpeername(accepted, reinterpret_cast<sockaddr*>(&name), &size));
    EXPECT_EQ(name_of(client).sin_port, name.sin_port);
    EXPECT_EQ(0, shutdown(accepted, SD_SEND));
    closesocket(client);
    closesocket(accepted);
    closesocket(listener);
}

TEST_F(Accept, AcceptExWithFirstBytes) {
    const SOCKET listener = listening_socket();
    HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(listener), nullptr, 77, 0);
    const SOCKET accepted = socket(AF_INET, SOCK_STREAM, 0);
    Call call;
    must_pend(accept_ex(listener, accepted, call, 64));
    const SOCKET client = client_of(listener);
    DWORD bytes;
    ULONG_PTR key;
    LPOVERLAPPED got;
    EXPECT_FALSE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 30)) << "not before the bytes";
    EXPECT_EQ(nullptr, got);
    send_all(client, "first bytes");
    EXPECT_TRUE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 10000));
    EXPECT_EQ(11u, bytes);
    EXPECT_EQ(77u, key) << "the listener's";
    EXPECT_EQ(&call.overlapped, got);
    EXPECT_EQ("first bytes", std::string(call.output, 11));
    sockaddr* local;
    sockaddr* remote;
    int local_size;
    int remote_size;
    GetAcceptExSockaddrs(call.output, 64, kArea, kArea, &local, &local_size, &remote, &remote_size);
    EXPECT_EQ(name_of(client).sin_port, reinterpret_cast<sockaddr_in*>(remote)->sin_port);
    closesocket(client);
    closesocket(accepted);
    closesocket(listener);
    CloseHandle(port);
}

TEST_F(Accept, AcceptExErrors) {
    const SOCKET listener = listening_socket();
    const SOCKET bound = bound_socket();
    const SOCKET fresh = socket(AF_INET, SOCK_STREAM, 0);
    Call call;
    EXPECT_FALSE(accept_ex(bound, fresh, call));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_FALSE(accept_ex(listener, bound, call));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_FALSE(accept_ex(listener, INVALID_SOCKET, call));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
    EXPECT_FALSE(AcceptEx(listener, fresh, call.output, 0, kArea, 0, &call.received, &call.overlapped));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError()) << "no room for the peer's address";
    EXPECT_EQ(static_cast<ULONG_PTR>(STATUS_PENDING), call.overlapped.Internal) << "marked all the same";
    EXPECT_FALSE(AcceptEx(listener, fresh, no_memory(), 0, kArea, kArea, &call.received, &call.overlapped));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_FALSE(AcceptEx(listener, fresh, call.output, 0, kArea, kArea, &call.received, nullptr));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_PARAMETER), GetLastError());
    // Cancelled, the socket can be given again.
    must_pend(accept_ex(listener, fresh, call));
    EXPECT_TRUE(CancelIoEx(reinterpret_cast<HANDLE>(listener), &call.overlapped));
    must_pend(accept_ex(listener, fresh, call));
    closesocket(listener);
    EXPECT_EQ(static_cast<ULONG_PTR>(static_cast<ULONG>(STATUS_CANCELLED)), call.overlapped.Internal);
    closesocket(bound);
    closesocket(fresh);
}

TEST_F(Accept, AcceptExWithTooLittleRoomFailsWhenSomebodyConnects) {
    const SOCKET listener = listening_socket();
    set_nonblocking(listener);
    const SOCKET fresh = socket(AF_INET, SOCK_STREAM, 0);
    Call call;
    for (const bool local : {true, false}) {
        must_pend(AcceptEx(listener, fresh, call.output, 0, local ? kArea - 1 : kArea,
                           local ? kArea : kArea - 1, &call.received, &call.overlapped));
        const SOCKET client = client_of(listener);
        DWORD bytes = 1;
        HANDLE file = reinterpret_cast<HANDLE>(listener);
        EXPECT_FALSE(GetOverlappedResult(file, &call.overlapped, &bytes, TRUE));
        EXPECT_EQ(DWORD{ERROR_INSUFFICIENT_BUFFER}, GetLastError());
        EXPECT_EQ(0U, bytes);
        const SOCKET left = accept(listener, nullptr, nullptr);
        EXPECT_NE(INVALID_SOCKET, left) << "the connection is the next accept's";
        closesocket(left);
        closesocket(client);
    }
    // No room at all for the own address is a wish not to have it.
    must_pend(AcceptEx(listener, fresh, call.output, 0, 0, kArea, &call.received, &call.overlapped));
    const SOCKET client = client_of(listener);
    DWORD bytes;
    EXPECT_TRUE(result_of(listener, call.overlapped, bytes)) << WSAGetLastError();
    sockaddr* locals = nullptr;
    sockaddr* remote = nullptr;
    int local_size = -1;
    int remote_size = -1;
    GetAcceptExSockaddrs(call.output, 0, 0, kArea, &locals, &local_size, &remote, &remote_size);
    EXPECT_EQ(nullptr, locals);
    EXPECT_EQ(-1, local_size);
    ASSERT_NE(nullptr, remote);
    EXPECT_EQ(name_of(client).sin_port, reinterpret_cast<sockaddr_in*>(remote)->sin_port);
    closesocket(client);
    closesocket(fresh);
    closesocket(listener);
}

TEST_F(Accept, ASocketThatIsBeingAcceptedIntoIsNotForAnythingElse) {
    const SOCKET listener = listening_socket();
    const SOCKET fresh = socket(AF_INET, SOCK_STREAM, 0);
    Call call;
    must_pend(accept_ex(listener, fresh, call));
    const sockaddr_in address = name_of(listener);
    EXPECT_EQ(SOCKET_ERROR, connect(fresh, generic(address), sizeof address));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, listen(fresh, 1));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    OVERLAPPED other{};
    EXPECT_FALSE(extension<LPFN_CONNECTEX>(fresh, WSAID_CONNECTEX)(fresh, generic(address), sizeof address,
                                                                   nullptr, 0, nullptr, &other));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    // Its end is that of the AcceptEx, whether that waits for a connection or for bytes.
    closesocket(fresh);
    DWORD bytes;
    EXPECT_FALSE(result_of(listener, call.overlapped, bytes));
    EXPECT_EQ(WSA_OPERATION_ABORTED, WSAGetLastError());
    const SOCKET second = socket(AF_INET, SOCK_STREAM, 0);
    must_pend(accept_ex(listener, second, call, 64));
    const SOCKET client = client_of(listener);
    closesocket(second);
    EXPECT_FALSE(result_of(listener, call.overlapped, bytes));
    EXPECT_EQ(WSA_OPERATION_ABORTED, WSAGetLastError());
    closesocket(client);
    closesocket(listener);
    // Of what is over the handle may be closed.
    EXPECT_FALSE(GetOverlappedResult(reinterpret_cast<HANDLE>(listener), &call.overlapped, &bytes, TRUE));
    EXPECT_EQ(DWORD{ERROR_OPERATION_ABORTED}, GetLastError());
}

TEST_F(Accept, UntilItsContextIsUpdatedAConnectExSocketIsNotForConnect) {
    const SOCKET listener = listening_socket();
    const sockaddr_in address = name_of(listener);
    const SOCKET client = bound_socket();
    Call call;
    must_pend(extension<LPFN_CONNECTEX>(client, WSAID_CONNECTEX)(client, generic(address), sizeof address,
                                                                 nullptr, 0, nullptr, &call.overlapped));
    DWORD bytes;
    ASSERT_TRUE(result_of(client, call.overlapped, bytes));
    EXPECT_EQ(SOCKET_ERROR, connect(client, generic(address), sizeof address));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    ASSERT_EQ(0, setsockopt(client, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, nullptr, 0));
    EXPECT_EQ(SOCKET_ERROR, connect(client, generic(address), sizeof address));
    EXPECT_EQ(WSAEISCONN, WSAGetLastError());
    closesocket(client);
    closesocket(listener);
}

TEST_F(Accept, ManyAcceptExAtOnce) {
    const SOCKET listener = listening_socket();
    constexpr size_t kCount = 16;
    std::vector<Call> posted(kCount);
    std::vector<SOCKET> accepted;
    for (Call& call : posted) {
        accepted.push_back(socket(AF_INET, SOCK_STREAM, 0));
        must_pend(accept_ex(listener, accepted.back(), call));
    }
    std::vector<SOCKET> clients;
    for (size_t i = 0; i < kCount; ++i)
        clients.push_back(client_of(listener));
    for (size_t i = 0; i < kCount; ++i) {
        DWORD bytes;
        ASSERT_TRUE(result_of(listener, posted[i].overlapped, bytes));
        settle(clients[i], accepted[i]);  // in the order of the calls
    }
    for (const SOCKET s : accepted)
        closesocket(s);
    for (const SOCKET s : clients)
        closesocket(s);
    closesocket(listener);
}

TEST_F(Accept, ConnectExNeedsABoundSocket) {
    const SOCKET listener = listening_socket();
    const sockaddr_in address = name_of(listener);
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    const auto connect_ex = extension<LPFN_CONNECTEX>(client, WSAID_CONNECTEX);
    OVERLAPPED overlapped{};
    EXPECT_FALSE(connect_ex(client, generic(address), sizeof address, nullptr, 0, nullptr, &overlapped));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    const sockaddr_in any{AF_INET, 0, {}, {}};
    ASSERT_EQ(0, bind(client, generic(any), sizeof any));
    ASSERT_EQ(0, opt_in(client));
    char first[] = "with it";
    DWORD sent = 0;
    must_pend(connect_ex(client, generic(address), sizeof address, first, 7, &sent, &overlapped));
    const SOCKET server = accept(listener, nullptr, nullptr);
    DWORD bytes = 0;
    ASSERT_TRUE(result_of(client, overlapped, bytes));
    EXPECT_EQ(7u, bytes);
    EXPECT_EQ("with it", receive_all(server, 7));
    sockaddr_in name;
    int size = sizeof name;
    EXPECT_EQ(SOCKET_ERROR, getpeername(client, reinterpret_cast<sockaddr*>(&name), &size));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    EXPECT_EQ(0, setsockopt(client, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, nullptr, 0));
    EXPECT_EQ(0, getpeername(client, reinterpret_cast<sockaddr*>(&name), &size));
    settle(client, server);
    EXPECT_TRUE(on_ring(client));
    DWORD seconds = 0xffffffff;
    size = sizeof seconds;
    EXPECT_EQ(0, getsockopt(client, SOL_SOCKET, SO_CONNECT_TIME, reinterpret_cast<char*>(&seconds), &size));
    EXPECT_LT(seconds, 60u);
    EXPECT_FALSE(connect_ex(client, generic(address), sizeof address, nullptr, 0, nullptr, &overlapped));
    EXPECT_EQ(WSAEISCONN, WSAGetLastError());
    closesocket(client);
    closesocket(server);
    closesocket(listener);
}

TEST_F(Accept, ConnectTimeOfAnUnconnectedSocket) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    DWORD seconds = 0;
    int size = sizeof seconds;
    EXPECT_EQ(0, getsockopt(s, SOL_SOCKET, SO_CONNECT_TIME, reinterpret_cast<char*>(&seconds), &size));
    EXPECT_EQ(0xffffffffu, seconds);
    closesocket(s);
}

TEST_F(Accept, ConnectExRefused) {
    const SOCKET bound = bound_socket();  // nobody listens there
    const sockaddr_in address = name_of(bound);
    const SOCKET client = bound_socket();
    const auto connect_ex = extension<LPFN_CONNECTEX>(client, WSAID_CONNECTEX);
    HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(client), nullptr, 1, 0);
    OVERLAPPED overlapped{};
    must_pend(connect_ex(client, generic(address), sizeof address, nullptr, 0, nullptr, &overlapped));
    DWORD bytes;
    ULONG_PTR key;
    LPOVERLAPPED got;
    EXPECT_FALSE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 10000));
    EXPECT_EQ(static_cast<DWORD>(ERROR_CONNECTION_REFUSED), GetLastError());
    EXPECT_EQ(&overlapped, got);
    EXPECT_FALSE(result_of(client, overlapped, bytes));
    EXPECT_EQ(WSAECONNREFUSED, WSAGetLastError());
    closesocket(client);
    closesocket(bound);
    CloseHandle(port);
}

TEST_F(Accept, DisconnectExAndUseAgain) {
    const SOCKET listener = listening_socket();
    const SOCKET accepted = socket(AF_INET, SOCK_STREAM, 0);
    const auto disconnect = extension<LPFN_DISCONNECTEX>(listener, WSAID_DISCONNECTEX);
    EXPECT_FALSE(disconnect(accepted, nullptr, TF_REUSE_SOCKET, 0));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    for (int round = 0; round < 3; ++round) {
        Call call;
        must_pend(accept_ex(listener, accepted, call));
        const SOCKET client = client_of(listener);
        DWORD bytes;
        ASSERT_TRUE(result_of(listener, call.overlapped, bytes)) << WSAGetLastError();
        settle(client, accepted);
        EXPECT_TRUE(on_ring(accepted));
        send_all(accepted, "farewell");
        if (round == 1) {
            OVERLAPPED overlapped{};
            if (!disconnect(accepted, &overlapped, TF_REUSE_SOCKET, 0)) {
                ASSERT_EQ(static_cast<DWORD>(ERROR_IO_PENDING), GetLastError());
                EXPECT_TRUE(result_of(accepted, overlapped, bytes));
            }
        } else {
            EXPECT_TRUE(disconnect(accepted, nullptr, TF_REUSE_SOCKET, 0));
        }
        EXPECT_EQ("farewell", receive_all(client, 9)) << "and then the end";
        closesocket(client);
    }
    closesocket(accepted);
    closesocket(listener);
}

TEST_F(Accept, UnknownExtension) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    GUID nobody{1, 2, 3, {4}};
    void* function = nullptr;
    DWORD returned = 9;
    EXPECT_EQ(SOCKET_ERROR, WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &nobody, sizeof nobody, &function,
                                     sizeof function, &returned, nullptr, nullptr));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    GUID known = WSAID_ACCEPTEX;
    EXPECT_EQ(SOCKET_ERROR, WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &known, sizeof known, &function,
                                     4, &returned, nullptr, nullptr));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    closesocket(s);
}

// WSAAccept.

struct Condition {
    int answer = CF_ACCEPT;
    int asked = 0;
    USHORT port = 0;
    int inside = 0;
};
int CALLBACK decide(LPWSABUF caller, LPWSABUF, LPQOS, LPQOS, LPWSABUF callee, LPWSABUF, GROUP* group,
                    DWORD_PTR data) {
    auto& condition = *reinterpret_cast<Condition*>(data);
    ++condition.asked;
    EXPECT_EQ(sizeof(sockaddr_in), caller->len);
    EXPECT_EQ(sizeof(sockaddr_in), callee->len);
    EXPECT_EQ(0u, *group);
    condition.port = reinterpret_cast<sockaddr_in*>(caller->buf)->sin_port;
    // No call may be made from in here.
    EXPECT_EQ(INVALID_SOCKET, socket(AF_INET, SOCK_STREAM, 0));
    condition.inside = WSAGetLastError();
    return condition.answer;
}

TEST_F(Accept, ConditionAccepts) {
    const SOCKET listener = listening_socket();
    const SOCKET client = client_of(listener);
    Condition condition;
    sockaddr_in name;
    int size = sizeof name;
    const SOCKET server = WSAAccept(listener, reinterpret_cast<sockaddr*>(&name), &size, decide,
                                    reinterpret_cast<DWORD_PTR>(&condition));
    ASSERT_NE(INVALID_SOCKET, server);
    EXPECT_EQ(1, condition.asked);
    EXPECT_EQ(WSAEINPROGRESS, condition.inside);
    EXPECT_EQ(name_of(client).sin_port, condition.port);
    EXPECT_EQ(condition.port, name.sin_port);
    settle(client, server);
    EXPECT_TRUE(on_ring(server));
    closesocket(client);
    closesocket(server);
    closesocket(listener);
}

TEST_F(Accept, ConditionRejects) {
    const SOCKET listener = listening_socket();
    const SOCKET client = client_of(listener);
    Condition condition;
    condition.answer = CF_REJECT;
    EXPECT_EQ(INVALID_SOCKET,
              WSAAccept(listener, nullptr, nullptr, decide, reinterpret_cast<DWORD_PTR>(&condition)));
    EXPECT_EQ(WSAECONNREFUSED, WSAGetLastError());
    char byte;
    EXPECT_EQ(SOCKET_ERROR, recv(client, &byte, 1, 0)) << "the peer does not hang";
    EXPECT_EQ(WSAECONNRESET, WSAGetLastError());
    closesocket(client);
    closesocket(listener);
}

TEST_F(Accept, ConditionDefers) {
    const SOCKET listener = listening_socket();
    const DWORD on = 1;
    EXPECT_EQ(SOCKET_ERROR, setsockopt(listener, SOL_SOCKET, SO_CONDITIONAL_ACCEPT,
                                       reinterpret_cast<const char*>(&on), sizeof on));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError()) << "before listen only";
    const SOCKET client = client_of(listener);
    Condition condition;
    condition.answer = CF_DEFER;
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(INVALID_SOCKET,
                  WSAAccept(listener, nullptr, nullptr, decide, reinterpret_cast<DWORD_PTR>(&condition)));
        EXPECT_EQ(WSATRY_AGAIN, WSAGetLastError());
        EXPECT_EQ(name_of(client).sin_port, condition.port) << "the same connection";
    }
    fd_set reading;
    FD_ZERO(&reading);
    FD_SET(listener, &reading);
    timeval none{0, 0};
    EXPECT_EQ(1, select(0, &reading, nullptr, nullptr, &none)) << "it still waits";
    condition.answer = CF_ACCEPT;
    const SOCKET server =
        WSAAccept(listener, nullptr, nullptr, decide, reinterpret_cast<DWORD_PTR>(&condition));
    ASSERT_NE(INVALID_SOCKET, server);
    settle(client, server);
    closesocket(client);
    closesocket(server);
    closesocket(listener);
}

TEST_F(Accept, AcceptedSocketsInherit) {
    const SOCKET listener = listening_socket();
    const DWORD value = 12345;
    const DWORD on = 1;
    const linger soft{1, 7};
    ASSERT_EQ(0, setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, reinterpret_cast<const char*>(&value),
                            sizeof value));
    ASSERT_EQ(
        0, setsockopt(listener, SOL_SOCKET, SO_RCVBUF, reinterpret_cast<const char*>(&value), sizeof value));
    ASSERT_EQ(0,
              setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, reinterpret_cast<const char*>(&on), sizeof on));
    ASSERT_EQ(0,
              setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, reinterpret_cast<const char*>(&on), sizeof on));
    ASSERT_EQ(0,
              setsockopt(listener, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&soft), sizeof soft));
    set_nonblocking(listener);
    const SOCKET client = client_of(listener);
    SOCKET server = INVALID_SOCKET;
    ASSERT_TRUE(eventually([&] { return (server = accept(listener, nullptr, nullptr)) != INVALID_SOCKET; }));
    const auto option = [&](int level, int name) {
        DWORD got = 0;
        int size = sizeof got;
        EXPECT_EQ(0, getsockopt(server, level, name, reinterpret_cast<char*>(&got), &size));
        return got;
    };
    EXPECT_EQ(value, option(SOL_SOCKET, SO_RCVTIMEO));
    EXPECT_EQ(value, option(SOL_SOCKET, SO_RCVBUF));
    EXPECT_EQ(1u, option(SOL_SOCKET, SO_KEEPALIVE));
    EXPECT_EQ(1u, option(IPPROTO_TCP, TCP_NODELAY));
    linger got{};
    int size = sizeof got;
    EXPECT_EQ(0, getsockopt(server, SOL_SOCKET, SO_LINGER, reinterpret_cast<char*>(&got), &size));
    EXPECT_EQ(7, got.l_linger);
    char byte;
    EXPECT_EQ(SOCKET_ERROR, recv(server, &byte, 1, 0));
    EXPECT_EQ(WSAEWOULDBLOCK, WSAGetLastError()) << "non-blocking, as the listener";
    closesocket(client);
    closesocket(server);
    closesocket(listener);
}

}  // namespace
}  // namespace test
