// The rules of the control code, by their numbers, and what its clients have reported; and the ways to
// connect: connect, WSAConnect, ConnectEx, WSAConnectByList, WSAConnectByName.
#include "common.h"

#include <ctime>

namespace test {
namespace {

class Rules : public Winsock {};

struct Ends {
    bool client = true;
    bool server = true;
};
Pair connect_with(Ends ends, const std::function<BOOL(SOCKET, const sockaddr_in&)>& way) {
    const SOCKET listener = listening_socket(ends.server);
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    if (ends.client) {
        EXPECT_EQ(0, opt_in(client));
    }
    EXPECT_TRUE(way(client, name_of(listener))) << WSAGetLastError();
    Pair pair(client, accept(listener, nullptr, nullptr));
    closesocket(listener);
    settle(pair.client, pair.server);
    return pair;
}
BOOL plainly(SOCKET s, const sockaddr_in& address) {
    return connect(s, generic(address), sizeof address) == 0;
}

TEST_F(Rules, Rule2DisabledByDefault) {
    const Pair pair = connect_with({false, false}, plainly);
    EXPECT_FALSE(on_ring(pair.client));
}

TEST_F(Rules, Rule3BothEndsMustSetIt) {
    for (const Ends ends : {Ends{true, false}, Ends{false, true}}) {
        const Pair pair = connect_with(ends, plainly);
        EXPECT_FALSE(on_ring(pair.client));
        EXPECT_FALSE(on_ring(pair.server));
    }
}

TEST_F(Rules, Rule4EachWayToConnect) {
    const std::vector<std::function<BOOL(SOCKET, const sockaddr_in&)>> ways = {
        plainly,
        [](SOCKET s, const sockaddr_in& address) {
            return BOOL{WSAConnect(s, generic(address), sizeof address, nullptr, nullptr, nullptr, nullptr) ==
                        0};
        },
        [](SOCKET s, const sockaddr_in& address) {
            set_nonblocking(s);
            EXPECT_EQ(SOCKET_ERROR, connect(s, generic(address), sizeof address));
            fd_set writing;
            FD_ZERO(&writing);
            FD_SET(s, &writing);
            timeval limit{10, 0};
            EXPECT_EQ(1, select(0, nullptr, &writing, nullptr, &limit));
            u_long off = 0;
            return BOOL{ioctlsocket(s, FIONBIO, &off) == 0};
        },
        [](SOCKET s, const sockaddr_in& address) {
            const sockaddr_in any{AF_INET, 0, {}, {}};
            EXPECT_EQ(0, bind(s, generic(any), sizeof any));
            OVERLAPPED overlapped{};
            extension<LPFN_CONNECTEX>(s, WSAID_CONNECTEX)(s, generic(address), sizeof address, nullptr, 0,
                                                          nullptr, &overlapped);
            DWORD bytes;
            DWORD flags;
            return WSAGetOverlappedResult(s, &overlapped, &bytes, TRUE, &flags);
        },
        [](SOCKET s, const sockaddr_in& address) {
            sockaddr_in copy = address;
            SOCKET_ADDRESS_LIST list{1, {{reinterpret_cast<sockaddr*>(&copy), sizeof copy}}};
            return WSAConnectByList(s, &list, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
        },
        [](SOCKET s, const sockaddr_in& address) {
            char node[] = "127.0.0.1";
            char service[8];
            snprintf(service, sizeof service, "%u", ntohs(address.sin_port));
            return WSAConnectByNameA(s, node, service, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
        },
        [](SOCKET s, const sockaddr_in& address) {
            WCHAR node[] = u"127.0.0.1";
            WCHAR service[8] = {};
            char narrow[8];
            snprintf(narrow, sizeof narrow, "%u", ntohs(address.sin_port));
            for (size_t i = 0; narrow[i] != 0; ++i)
                service[i] = static_cast<WCHAR>(narrow[i]);
            return WSAConnectByNameW(s, node, service, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
        },
    };
    for (size_t i = 0; i < ways.size(); ++i) {
        SCOPED_TRACE(i);
        const Pair pair = connect_with({}, ways[i]);
        EXPECT_TRUE(on_ring(pair.client));
        EXPECT_TRUE(on_ring(pair.server));
    }
}

TEST_F(Rules, Rule5ListenerBeforeBindAfterBindAfterListen) {
    for (int when = 0; when < 3; ++when) {
        SCOPED_TRACE(when);
        const SOCKET listener = socket(AF_INET, SOCK_STREAM, 0);
        const sockaddr_in any = loopback();
        for (int step = 0; step < 3; ++step) {
            if (step == when) {
                EXPECT_EQ(0, opt_in(listener));
            }
            if (step == 0) {
                EXPECT_EQ(0, bind(listener, generic(any), sizeof any));
            }
            if (step == 1) {
                EXPECT_EQ(0, listen(listener, 5));
            }
        }
        const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(0, opt_in(client));
        ASSERT_TRUE(plainly(client, name_of(listener)));
        Pair pair(client, accept(listener, nullptr, nullptr));
        settle(pair.client, pair.server);
        EXPECT_TRUE(on_ring(pair.server));
        closesocket(listener);
    }
}

TEST_F(Rules, Rule6WhatIsAcceptedIsMarked) {
    const SOCKET listener = listening_socket();
    for (int way = 0; way < 2; ++way) {
        const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(0, opt_in(client));
        ASSERT_TRUE(plainly(client, name_of(listener)));
        Pair pair(client, way == 0 ? accept(listener, nullptr, nullptr)
                                   : WSAAccept(listener, nullptr, nullptr, nullptr, 0));
        settle(pair.client, pair.server);
        EXPECT_TRUE(on_ring(pair.server));
    }
    closesocket(listener);  // AcceptEx: accept_test.cpp
}

TEST_F(Rules, Rule7OnAConnectedSocketWithoutEffect) {
    const Pair pair = connect_with({false, true}, plainly);
    EXPECT_EQ(0, opt_in(pair.client));
    settle(pair.client, pair.server);
    EXPECT_FALSE(on_ring(pair.client));
    const Pair fused = connect_with({}, plainly);
    EXPECT_EQ(0, opt_in(fused.client, 0));
    settle(fused.client, fused.server);
    EXPECT_TRUE(on_ring(fused.client));
}

TEST_F(Rules, Rule8SetToFalseBefore) {
    const Pair pair = connect_with({}, [](SOCKET s, const sockaddr_in& address) {
        EXPECT_EQ(0, opt_in(s, 0));
        return plainly(s, address);
    });
    EXPECT_FALSE(on_ring(pair.client));
}

TEST_F(Rules, Rule10AndItStaysForItsLifetime) {
    const Pair pair = connect_with({}, plainly);
    for (int i = 0; i < 100; ++i)
        settle(pair.client, pair.server);
    EXPECT_TRUE(on_ring(pair.client));
}

TEST_F(Rules, Rule12FlowControl) {
    const Pair pair = connect_with({}, plainly);
    const std::string text(32 << 20, 'f');
    std::thread sender([&] { send_all(pair.client, text); });
    Sleep(20);
    EXPECT_EQ(text, receive_all(pair.server, text.size()));
    sender.join();
}

TEST_F(Rules, ReportDualStackSockets) {
    const DWORD off = 0;
    const SOCKET listener = socket(AF_INET6, SOCK_STREAM, 0);
    ASSERT_EQ(
        0, setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, reinterpret_cast<const char*>(&off), sizeof off));
    ASSERT_EQ(0, opt_in(listener));
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    ASSERT_EQ(0, bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any));
    ASSERT_EQ(0, listen(listener, 5));
    int size = sizeof any;
    ASSERT_EQ(0, getsockname(listener, reinterpret_cast<sockaddr*>(&any), &size));
    // From an IPv4 socket, and from one of both families by a v4-mapped address in a list.
    const SOCKET four = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(0, opt_in(four));
    ASSERT_TRUE(plainly(four, loopback(ntohs(any.sin6_port))));
    Pair one(four, accept(listener, nullptr, nullptr));
    settle(one.client, one.server);
    EXPECT_TRUE(on_ring(one.client));
    const SOCKET both = socket(AF_INET6, SOCK_STREAM, 0);
    ASSERT_EQ(0,
              setsockopt(both, IPPROTO_IPV6, IPV6_V6ONLY, reinterpret_cast<const char*>(&off), sizeof off));
    ASSERT_EQ(0, opt_in(both));
    sockaddr_in mapped = loopback(ntohs(any.sin6_port));
    SOCKET_ADDRESS_LIST list{1, {{reinterpret_cast<sockaddr*>(&mapped), sizeof mapped}}};
    sockaddr_storage remote{};
    DWORD remote_size = sizeof remote;
    ASSERT_TRUE(WSAConnectByList(both, &list, nullptr, nullptr, &remote_size,
                                 reinterpret_cast<sockaddr*>(&remote), nullptr, nullptr))
        << WSAGetLastError();
    EXPECT_EQ(AF_INET6, remote.ss_family);
    Pair other(both, accept(listener, nullptr, nullptr));
    settle(other.client, other.server);
    EXPECT_TRUE(on_ring(other.client));
    closesocket(listener);
}

TEST_F(Rules, ReportThePeerSeesCloseAndReset) {
    for (const bool reset : {false, true}) {
        Pair pair = connect_with({}, plainly);
        std::thread waiting([&] {
            char byte;
            const int result = recv(pair.server, &byte, 1, 0);
            EXPECT_EQ(reset ? SOCKET_ERROR : 0, result);
            if (reset) {
                EXPECT_EQ(WSAECONNRESET, WSAGetLastError());
            }
        });
        Sleep(20);
        const linger hard{1, 0};
        if (reset)
            setsockopt(pair.client, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&hard), sizeof hard);
        pair.close_client();
        waiting.join();
    }
}

TEST_F(Rules, ReportProcessorsSpun) {
    std::vector<Pair> pairs;
    for (int i = 0; i < 20; ++i)
        pairs.push_back(connect_with({}, plainly));
    HANDLE port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 0);
    std::vector<OVERLAPPED> overlapped(pairs.size());
    char bytes[8];
    WSABUF buffer{8, bytes};
    for (size_t i = 0; i < pairs.size(); ++i) {
        DWORD flags = 0;
        if (i % 2 == 0)
            CreateIoCompletionPort(reinterpret_cast<HANDLE>(pairs[i].server), port, 1, 0);
        EXPECT_EQ(SOCKET_ERROR,
                  WSARecv(pairs[i].server, &buffer, 1, nullptr, &flags, &overlapped[i], nullptr));
    }
    // Pending everywhere, idle: with a thread in the port, and with none anywhere.
    const std::clock_t before = std::clock();
    DWORD count;
    ULONG_PTR key;
    LPOVERLAPPED got;
    EXPECT_FALSE(GetQueuedCompletionStatus(port, &count, &key, &got, 300));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_LT(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC, 0.1) << "of 0.6 s";
    for (Pair& pair : pairs)
        pair.close_server();
    CloseHandle(port);
}

TEST_F(Rules, ReportReturnedBytesUninitialisedAndErrorsIgnored) {
    const SOCKET udp = socket(AF_INET, SOCK_DGRAM, 0);
    EXPECT_EQ(SOCKET_ERROR, opt_in(udp));
    const sockaddr_in any = loopback();
    EXPECT_EQ(0, bind(udp, generic(any), sizeof any)) << "the socket works on";
    closesocket(udp);
}

TEST_F(Rules, ConnectByListTriesInOrder) {
    const SOCKET nobody = bound_socket();
    const SOCKET listener = listening_socket();
    sockaddr_in refused = name_of(nobody);
    sockaddr_in answers = name_of(listener);
    struct {
        SOCKET_ADDRESS_LIST list;
        SOCKET_ADDRESS more[2];
    } two{{2, {{reinterpret_cast<sockaddr*>(&refused), sizeof refused}}},
          {{reinterpret_cast<sockaddr*>(&answers), sizeof answers}, {}}};
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(0, opt_in(client));
    sockaddr_in local{};
    sockaddr_in remote{};
    DWORD local_size = sizeof local;
    DWORD remote_size = sizeof remote;
    timeval limit{10, 0};
    ASSERT_TRUE(WSAConnectByList(client, &two.list, &local_size, reinterpret_cast<sockaddr*>(&local),
                                 &remote_size, reinterpret_cast<sockaddr*>(&remote), &limit, nullptr))
        << WSAGetLastError();
    EXPECT_EQ(answers.sin_port, remote.sin_port);
    EXPECT_EQ(name_of(client).sin_port, local.sin_port);
    Pair pair(client, accept(listener, nullptr, nullptr));
    settle(pair.client, pair.server);
    EXPECT_TRUE(on_ring(pair.client)) << "the winner decides";

    const SOCKET none = socket(AF_INET, SOCK_STREAM, 0);
    two.list.iAddressCount = 1;
    EXPECT_FALSE(WSAConnectByList(none, &two.list, nullptr, nullptr, nullptr, nullptr, &limit, nullptr));
    EXPECT_EQ(WSAECONNREFUSED, WSAGetLastError());
    EXPECT_FALSE(WSAConnectByList(none, nullptr, nullptr, nullptr, nullptr, nullptr, &limit, nullptr));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    OVERLAPPED overlapped{};
    EXPECT_FALSE(WSAConnectByList(none, &two.list, nullptr, nullptr, nullptr, nullptr, &limit, &overlapped));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    closesocket(none);
    closesocket(nobody);
    closesocket(listener);
}

TEST_F(Rules, ConnectByListTimeout) {
    // A listener whose queue is full does not answer.
    const SOCKET listener = bound_socket();
    ASSERT_EQ(0, listen(listener, 1));
    sockaddr_in address = name_of(listener);
    std::vector<SOCKET> fill;
    for (int i = 0; i < 4; ++i) {
        fill.push_back(socket(AF_INET, SOCK_STREAM, 0));
        set_nonblocking(fill.back());
        (void)connect(fill.back(), generic(address), sizeof address);
    }
    SOCKET_ADDRESS_LIST list{1, {{reinterpret_cast<sockaddr*>(&address), sizeof address}}};
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    timeval limit{0, 100000};
    const ULONGLONG start = GetTickCount64();
    EXPECT_FALSE(WSAConnectByList(client, &list, nullptr, nullptr, nullptr, nullptr, &limit, nullptr));
    EXPECT_EQ(WSAETIMEDOUT, WSAGetLastError());
    EXPECT_GE(GetTickCount64() - start, 99u);
    closesocket(client);
    for (const SOCKET s : fill)
        closesocket(s);
    closesocket(listener);
}

TEST_F(Rules, ConnectByNameErrors) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    char node[] = "no such host.invalid";
    char service[] = "80";
    char bad_service[] = "no such service";
    char here[] = "127.0.0.1";
    EXPECT_FALSE(
        WSAConnectByNameA(s, nullptr, service, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_FALSE(WSAConnectByNameA(s, node, service, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr));
    EXPECT_GE(WSAGetLastError(), WSAHOST_NOT_FOUND);
    EXPECT_FALSE(
        WSAConnectByNameA(s, here, bad_service, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr));
    EXPECT_EQ(WSATYPE_NOT_FOUND, WSAGetLastError());
    closesocket(s);
}

TEST_F(Rules, NamesAndAddresses) {
    addrinfo hints{};
    hints.ai_family = AF_INET6;
    hints.ai_flags = AI_NUMERICHOST;
    addrinfo* list = nullptr;
    ASSERT_EQ(0, getaddrinfo("::1", "80", &hints, &list));
    EXPECT_EQ(AF_INET6, list->ai_addr->sa_family) << "23, as here";
    char host[NI_MAXHOST];
    char service[NI_MAXSERV];
    EXPECT_EQ(0, getnameinfo(list->ai_addr, static_cast<int>(list->ai_addrlen), host, sizeof host, service,
                             sizeof service, NI_NUMERICHOST | NI_NUMERICSERV));
    EXPECT_STREQ("::1", host);
    EXPECT_STREQ("80", service);
    char text[64];
    DWORD size = sizeof text;
    EXPECT_EQ(0,
              WSAAddressToStringA(list->ai_addr, static_cast<DWORD>(list->ai_addrlen), nullptr, text, &size));
    EXPECT_STREQ("[::1]:80", text);
    freeaddrinfo(list);
    sockaddr_in6 parsed{};
    int length = sizeof parsed;
    EXPECT_EQ(0, WSAStringToAddressA(text, AF_INET6, nullptr, reinterpret_cast<sockaddr*>(&parsed), &length));
    EXPECT_EQ(htons(80), parsed.sin6_port);
    EXPECT_EQ(WSAHOST_NOT_FOUND, getaddrinfo("not a number", nullptr, &hints, &list));
    // One entry for each address, with the kind that was asked for.
    struct {
        int type, protocol;
    } kinds[] = {{0, 0}, {SOCK_STREAM, 0}, {SOCK_STREAM, IPPROTO_TCP}, {SOCK_DGRAM, 0}};
    for (const auto& kind : kinds) {
        addrinfo wanted{};
        wanted.ai_socktype = kind.type;
        wanted.ai_protocol = kind.protocol;
        ASSERT_EQ(0, getaddrinfo("127.0.0.1", "80", &wanted, &list));
        EXPECT_EQ(kind.type, list->ai_socktype);
        EXPECT_EQ(kind.protocol, list->ai_protocol);
        EXPECT_EQ(nullptr, list->ai_next);
        freeaddrinfo(list);
    }
    ASSERT_EQ(0, getaddrinfo("127.0.0.1", "80", nullptr, &list));
    EXPECT_EQ(0, list->ai_socktype);
    EXPECT_EQ(nullptr, list->ai_next);
    char few[4];
    EXPECT_EQ(ERROR_INSUFFICIENT_BUFFER, getnameinfo(list->ai_addr, static_cast<int>(list->ai_addrlen), few,
                                                     sizeof few, nullptr, 0, NI_NUMERICHOST));
    freeaddrinfo(list);
    const auto read = [](std::string from, int family, sockaddr_in6& to) {
        int room = sizeof to;
        to = {};
        return WSAStringToAddressA(from.data(), family, nullptr, reinterpret_cast<sockaddr*>(&to), &room);
    };
    for (const char* good : {"127.1", "0x7f.1", "127.0.0.1:80", "127.0.0.1:0x50"})
        EXPECT_EQ(0, read(good, AF_INET, parsed)) << good;
    for (const char* bad : {"127.0.0.1:0", "127.0.0.1:", "127.0.0.1 ", "127.0.0.1:65536", ""})
        EXPECT_EQ(SOCKET_ERROR, read(bad, AF_INET, parsed)) << bad;
    EXPECT_EQ(0, read("[fe80::1%3]:99", AF_INET6, parsed));
    EXPECT_EQ(3u, parsed.sin6_scope_id);
    size = sizeof text;
    EXPECT_EQ(0,
              WSAAddressToStringA(reinterpret_cast<sockaddr*>(&parsed), sizeof parsed, nullptr, text, &size));
    EXPECT_STREQ("[fe80::1%3]:99", text);
    EXPECT_EQ(SOCKET_ERROR, read("fe80::1%", AF_INET6, parsed));
    PADDRINFOW wide = nullptr;
    ASSERT_EQ(0, GetAddrInfoW(u"127.0.0.1", u"443", nullptr, &wide));
    EXPECT_EQ(AF_INET, wide->ai_family);
    FreeAddrInfoW(wide);
    in_addr four{};
    EXPECT_EQ(1, inet_pton(AF_INET, "1.2.3.4", &four));
    EXPECT_STREQ("1.2.3.4", inet_ntoa(four));
    EXPECT_EQ(four.s_addr, inet_addr("1.2.3.4"));
    for (const char* same : {"127.1", "127.0.1", "0x7f000001", "0177.0.0.1", "2130706433", "127.0.0.1 "})
        EXPECT_EQ(htonl(INADDR_LOOPBACK), inet_addr(same)) << same;
    EXPECT_EQ(0u, inet_addr(" "));
    for (const char* none : {"", "x", "1.2.3.4x", "256.1.1.1", "1.2.3.4.5"})
        EXPECT_EQ(INADDR_NONE, inet_addr(none)) << none;
    EXPECT_EQ(0, inet_pton(AF_INET, "127.1", &four)) << "strict";
    EXPECT_EQ(-1, inet_pton(77, "1.2.3.4", &four));
    EXPECT_EQ(WSAEAFNOSUPPORT, WSAGetLastError());
    char name[256];
    EXPECT_EQ(0, gethostname(name, sizeof name));
    EXPECT_EQ(SOCKET_ERROR, gethostname(name, 1));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    const hostent* const localhost = gethostbyname("localhost");
    ASSERT_NE(nullptr, localhost);
    EXPECT_EQ(4, localhost->h_length);
}

}  // namespace
}  // namespace test
