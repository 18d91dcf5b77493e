// Options. The eleven that the control code's page names, on a socket of the fast path; the others that
// clients set.
#include "common.h"

namespace test {
namespace {

class Options : public Winsock {
protected:
    static int set(SOCKET s, int level, int name, DWORD value) {
        return setsockopt(s, level, name, reinterpret_cast<const char*>(&value), sizeof value) == 0
                   ? 0
                   : WSAGetLastError();
    }
    static DWORD get(SOCKET s, int level, int name) {
        DWORD value = 0xabcdef;
        int size = sizeof value;
        EXPECT_EQ(0, getsockopt(s, level, name, reinterpret_cast<char*>(&value), &size)) << WSAGetLastError();
        return value;
    }
    static void keeps(SOCKET s, int level, int name, DWORD value) {
        EXPECT_EQ(0, set(s, level, name, value));
        EXPECT_EQ(value, get(s, level, name));
    }
    static SOCKET v6() { return socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP); }
};

TEST_F(Options, Rule14OnAFusedSocket) {
    Pair pair = connected_pair();
    for (const SOCKET s : {pair.client, pair.server}) {
        keeps(s, IPPROTO_IP, IP_TTL, 33);
        keeps(s, IPPROTO_IP, IP_UNICAST_IF, htonl(1));
        keeps(s, SOL_SOCKET, SO_RCVBUF, 100000);
        keeps(s, SOL_SOCKET, SO_REUSEADDR, 1);
        keeps(s, IPPROTO_TCP, TCP_BSDURGENT, 0);
        EXPECT_EQ(0u, get(s, SOL_SOCKET, SO_CONDITIONAL_ACCEPT));
        EXPECT_EQ(0u, get(s, SOL_SOCKET, SO_PORT_SCALABILITY));
        EXPECT_EQ(0u, get(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE));
        EXPECT_EQ(WSAEINVAL, set(s, SOL_SOCKET, SO_PORT_SCALABILITY, 1)) << "before bind only";
    }
    settle(pair.client, pair.server);
    EXPECT_TRUE(on_ring(pair.client));
}

TEST_F(Options, Rule14Ipv6) {
    const SOCKET listener = v6();
    EXPECT_EQ(1u, get(listener, IPPROTO_IPV6, IPV6_V6ONLY)) << "Windows' default";
    keeps(listener, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    ASSERT_EQ(0, opt_in(listener));
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    ASSERT_EQ(0, bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any));
    ASSERT_EQ(0, listen(listener, 5));
    int size = sizeof any;
    ASSERT_EQ(0, getsockname(listener, reinterpret_cast<sockaddr*>(&any), &size));
    EXPECT_EQ(AF_INET6, any.sin6_family);
    any.sin6_addr = in6addr_loopback;
    const SOCKET client = v6();
    ASSERT_EQ(0, opt_in(client));
    ASSERT_EQ(0, connect(client, reinterpret_cast<sockaddr*>(&any), sizeof any)) << WSAGetLastError();
    const SOCKET server = accept(listener, nullptr, nullptr);
    settle(client, server);
    EXPECT_TRUE(on_ring(client));
    keeps(client, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9);
    keeps(client, IPPROTO_IPV6, IPV6_UNICAST_IF, 1);  // host byte order
    EXPECT_EQ(WSAEINVAL, set(client, IPPROTO_IPV6, IPV6_UNICAST_IF, htonl(1)))
        << "there is no such interface";
    closesocket(client);
    closesocket(server);
    closesocket(listener);
}

TEST_F(Options, BeforeBind) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    keeps(s, SOL_SOCKET, SO_PORT_SCALABILITY, 1);
    keeps(s, SOL_SOCKET, SO_CONDITIONAL_ACCEPT, 1);
    keeps(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1);
    EXPECT_EQ(WSAEINVAL, set(s, SOL_SOCKET, SO_REUSEADDR, 1)) << "not both";
    keeps(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 0);
    keeps(s, SOL_SOCKET, SO_REUSEADDR, 1);
    EXPECT_EQ(WSAEINVAL, set(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1)) << "not both";
    closesocket(s);
}

/// Who may bind beside whom, as Windows has it for one user and the same address.
TEST_F(Options, ReuseAndExclusive) {
    enum Kind { kDefault, kReuse, kExclusive };
    const auto bind_as = [](Kind kind, const sockaddr_in& address, SOCKET& s) {
        s = socket(AF_INET, SOCK_STREAM, 0);
        if (kind != kDefault) {
            EXPECT_EQ(0, set(s, SOL_SOCKET, kind == kReuse ? SO_REUSEADDR : SO_EXCLUSIVEADDRUSE, 1));
        }
        return bind(s, generic(address), sizeof address) == 0 ? 0 : WSAGetLastError();
    };
    struct Row {
        Kind first, second;
        int error;
    };
    for (const Row& row : {Row{kDefault, kDefault, WSAEADDRINUSE}, Row{kDefault, kReuse, 0},
                           Row{kDefault, kExclusive, WSAEADDRINUSE}, Row{kReuse, kDefault, WSAEADDRINUSE},
                           Row{kReuse, kReuse, 0}, Row{kReuse, kExclusive, WSAEADDRINUSE},
                           Row{kExclusive, kDefault, WSAEADDRINUSE}, Row{kExclusive, kReuse, WSAEACCES},
                           Row{kExclusive, kExclusive, WSAEADDRINUSE}}) {
        SCOPED_TRACE(row.first * 10 + row.second);
        SOCKET first;
        SOCKET second;
        ASSERT_EQ(0, bind_as(row.first, loopback(), first));
        EXPECT_EQ(row.error, bind_as(row.second, name_of(first), second));
        closesocket(first);
        closesocket(second);
    }
}

TEST_F(Options, RebindingAfterAConnection) {
    // A server that ends and starts again gets its port back, though its connections rest in TIME_WAIT.
    const SOCKET listener = listening_socket(false);
    const sockaddr_in address = name_of(listener);
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(0, connect(client, generic(address), sizeof address));
    const SOCKET server = accept(listener, nullptr, nullptr);
    closesocket(server);
    closesocket(client);
    closesocket(listener);
    const SOCKET again = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(0, bind(again, generic(address), sizeof address)) << WSAGetLastError();
    closesocket(again);
}

TEST_F(Options, WhatClientsSet) {
    Pair pair = connected_pair();
    const SOCKET s = pair.client;
    keeps(s, IPPROTO_TCP, TCP_NODELAY, 1);
    keeps(s, SOL_SOCKET, SO_KEEPALIVE, 1);
    keeps(s, SOL_SOCKET, SO_SNDBUF, 65536);
    keeps(s, SOL_SOCKET, SO_OOBINLINE, 1);
    keeps(s, SOL_SOCKET, SO_OOBINLINE, 0);
    keeps(s, SOL_SOCKET, SO_DONTROUTE, 0);
    keeps(s, SOL_SOCKET, SO_RCVTIMEO, 1500);
    keeps(s, SOL_SOCKET, SO_SNDTIMEO, 2500);
    keeps(s, IPPROTO_IP, IP_TOS, 16);
    keeps(s, IPPROTO_IP, IP_DONTFRAGMENT, 1);
    keeps(s, IPPROTO_TCP, TCP_KEEPALIVE, 77);
    keeps(s, IPPROTO_TCP, TCP_KEEPINTVL, 7);
    keeps(s, IPPROTO_TCP, TCP_KEEPCNT, 5);
    const linger soft{1, 3};
    EXPECT_EQ(0, setsockopt(s, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&soft), sizeof soft));
    EXPECT_EQ(0u, get(s, SOL_SOCKET, SO_DONTLINGER));
    keeps(s, SOL_SOCKET, SO_DONTLINGER, 1);
    EXPECT_EQ(static_cast<DWORD>(SOCK_STREAM), get(s, SOL_SOCKET, SO_TYPE));
    EXPECT_EQ(0u, get(s, SOL_SOCKET, SO_ERROR));
    EXPECT_EQ(0u, get(s, SOL_SOCKET, SO_ACCEPTCONN));
    WSAPROTOCOL_INFOW info{};
    int size = sizeof info;
    EXPECT_EQ(0, getsockopt(s, SOL_SOCKET, SO_PROTOCOL_INFOW, reinterpret_cast<char*>(&info), &size));
    EXPECT_EQ(AF_INET, info.iAddressFamily);
    EXPECT_EQ(IPPROTO_TCP, info.iProtocol);
    const SOCKET like = WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0, 0);
    EXPECT_NE(INVALID_SOCKET, like);
    closesocket(like);
    settle(pair.client, pair.server);
    EXPECT_TRUE(on_ring(s));
}

TEST_F(Options, KeepAliveValues) {
    Pair pair = connected_pair();
    tcp_keepalive values{1, 5000, 2000};
    DWORD returned = 9;
    EXPECT_EQ(0, WSAIoctl(pair.client, SIO_KEEPALIVE_VALS, &values, sizeof values, nullptr, 0, &returned,
                          nullptr, nullptr));
    EXPECT_EQ(0u, returned);
    EXPECT_EQ(1u, get(pair.client, SOL_SOCKET, SO_KEEPALIVE));
    EXPECT_EQ(5u, get(pair.client, IPPROTO_TCP, TCP_KEEPALIVE));
    EXPECT_EQ(2u, get(pair.client, IPPROTO_TCP, TCP_KEEPINTVL));
    EXPECT_EQ(SOCKET_ERROR,
              WSAIoctl(pair.client, SIO_KEEPALIVE_VALS, &values, 4, nullptr, 0, &returned, nullptr, nullptr));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
}

TEST_F(Options, Errors) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(WSAENOPROTOOPT, set(s, SOL_SOCKET, 0x7777, 1));
    EXPECT_EQ(WSAEINVAL, set(s, 0x1234, 1, 1));
    EXPECT_EQ(WSAENOPROTOOPT, set(s, IPPROTO_IPV6, IPV6_V6ONLY, 1)) << "not this family's";
    DWORD value = 1;
    const auto* const bytes = reinterpret_cast<const char*>(&value);
    EXPECT_EQ(SOCKET_ERROR, setsockopt(s, SOL_SOCKET, SO_RCVBUF, bytes, 2));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, setsockopt(s, SOL_SOCKET, SO_RCVBUF, no_memory(), 4));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, setsockopt(s, SOL_SOCKET, SO_RCVBUF, nullptr, 4));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(0, setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, "\1", 1)) << "a BOOL may be one byte";
    int size = 4;
    EXPECT_EQ(SOCKET_ERROR, getsockopt(s, SOL_SOCKET, SO_RCVBUF, no_memory(), &size));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    size = 2;
    EXPECT_EQ(SOCKET_ERROR, getsockopt(s, SOL_SOCKET, SO_RCVBUF, reinterpret_cast<char*>(&value), &size));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, getsockopt(s, SOL_SOCKET, SO_RCVBUF, reinterpret_cast<char*>(&value), nullptr));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, setsockopt(s, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, nullptr, 0));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    closesocket(s);
}

TEST_F(Options, ReceiveTimeout) {
    Pair pair = connected_pair();
    EXPECT_EQ(0, set(pair.server, SOL_SOCKET, SO_RCVTIMEO, 40));
    char byte;
    const ULONGLONG start = GetTickCount64();
    EXPECT_EQ(SOCKET_ERROR, recv(pair.server, &byte, 1, 0));
    EXPECT_EQ(WSAETIMEDOUT, WSAGetLastError());
    EXPECT_GE(GetTickCount64() - start, 39u);
    EXPECT_EQ(0, set(pair.client, SOL_SOCKET, SO_SNDTIMEO, 40));
    const std::string block(64 << 20, 's');
    const int sent = send(pair.client, block.data(), static_cast<int>(block.size()), 0);
    EXPECT_LT(sent, static_cast<int>(block.size()));
}

}  // namespace
}  // namespace test
