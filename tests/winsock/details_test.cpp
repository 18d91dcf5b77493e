// What Windows does where the pages are silent or vague and programs have come to expect it: selections that
// are made anew, closing under a call that waits, APCs inside blocking calls, room that AcceptEx is given.
#include "common.h"

using namespace test;

namespace {

class Details : public ::testing::Test {
protected:
    void SetUp() override {
        WSADATA data;
        ASSERT_EQ(0, WSAStartup(MAKEWORD(2, 2), &data));
        event_ = WSACreateEvent();
    }
    void TearDown() override {
        WSACloseEvent(event_);
        WSACleanup();
    }
    bool is_set(DWORD timeout = 0) { return WaitForSingleObject(event_, timeout) == WAIT_OBJECT_0; }
    LONG taken(SOCKET s) {
        WSANETWORKEVENTS events;
        EXPECT_EQ(0, WSAEnumNetworkEvents(s, event_, &events));
        return events.lNetworkEvents;
    }
    void select_events(SOCKET s, LONG mask) {
        ASSERT_EQ(0, WSAEventSelect(s, mask != 0 ? event_ : nullptr, mask)) << WSAGetLastError();
    }
    WSAEVENT event_ = WSA_INVALID_EVENT;
};
class OnBothPaths : public Details, public ::testing::WithParamInterface<Path> {};
INSTANTIATE_TEST_SUITE_P(Paths, OnBothPaths, ::testing::Values(Path::kRing, Path::kKernel));

constexpr DWORD kLong = 20000;

TEST_P(OnBothPaths, ASelectionMadeAnewTellsNothingTwice) {
    Pair pair = connected_pair(GetParam());
    select_events(pair.server, FD_READ | FD_WRITE);
    EXPECT_TRUE(is_set());
    EXPECT_EQ(FD_WRITE, taken(pair.server));
    for (const LONG between : {LONG{FD_READ | FD_WRITE}, LONG{0}}) {
        select_events(pair.server, between);
        select_events(pair.server, FD_READ | FD_WRITE);
        EXPECT_FALSE(is_set());
        EXPECT_EQ(0, taken(pair.server));
    }
    send_all(pair.client, "bytes");
    EXPECT_TRUE(is_set(kLong));
    EXPECT_EQ(FD_READ, taken(pair.server));
    select_events(pair.server, 0);
    select_events(pair.server, FD_READ | FD_CLOSE);
    EXPECT_FALSE(is_set()) << "told before";
    char bytes[8];
    select_events(pair.server, 0);
    EXPECT_EQ(2, recv(pair.server, bytes, 2, 0));
    select_events(pair.server, FD_READ | FD_CLOSE);
    EXPECT_TRUE(is_set()) << "re-enabled while nothing was selected";
    EXPECT_EQ(FD_READ, taken(pair.server));
}

TEST_P(OnBothPaths, WhatIsRecordedOutlastsASelectionWithoutIt) {
    Pair pair = connected_pair(GetParam());
    select_events(pair.server, FD_READ);
    send_all(pair.client, "bytes");
    EXPECT_TRUE(is_set(kLong));
    select_events(pair.server, FD_CLOSE);
    WSAResetEvent(event_);
    EXPECT_EQ(0, taken(pair.server)) << "not what is selected";
    select_events(pair.server, FD_READ);
    EXPECT_TRUE(is_set());
    EXPECT_EQ(FD_READ, taken(pair.server));
}

TEST_P(OnBothPaths, MoreThanWasToldIsToldAgain) {
    Pair pair = connected_pair(GetParam());
    select_events(pair.server, FD_READ);
    send_all(pair.client, "some");
    EXPECT_TRUE(is_set(kLong));
    EXPECT_EQ(FD_READ, taken(pair.server));
    EXPECT_FALSE(is_set(20));
    send_all(pair.client, "more");
    EXPECT_TRUE(is_set(kLong));
    EXPECT_EQ(FD_READ, taken(pair.server));
    EXPECT_FALSE(is_set(20));
    EXPECT_EQ("somemore", receive_all(pair.server, 8));
}

TEST_F(Details, AnotherConnectionIsToldWhileOneWaits) {
    const SOCKET listener = listening_socket();
    select_events(listener, FD_ACCEPT);
    const sockaddr_in address = name_of(listener);
    SOCKET clients[2];
    for (SOCKET& client : clients) {
        client = socket(AF_INET, SOCK_STREAM, 0);
        ASSERT_EQ(0, connect(client, generic(address), sizeof address));
        EXPECT_TRUE(is_set(kLong));
        EXPECT_EQ(FD_ACCEPT, taken(listener));
        EXPECT_FALSE(is_set(20));
    }
    for (int left = 1; left >= 0; --left) {
        closesocket(accept(listener, nullptr, nullptr));
        EXPECT_EQ(left > 0, is_set(20));
        taken(listener);
    }
    for (const SOCKET client : clients)
        closesocket(client);
    closesocket(listener);
}

TEST_F(Details, WhoConnectedIsToldSoByALaterSelection) {
    const SOCKET listener = listening_socket();
    const sockaddr_in address = name_of(listener);
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(0, connect(client, generic(address), sizeof address));
    const SOCKET server = accept(listener, nullptr, nullptr);
    select_events(client, FD_CONNECT | FD_WRITE);
    EXPECT_EQ(FD_CONNECT | FD_WRITE, taken(client));
    select_events(server, FD_CONNECT | FD_WRITE);
    EXPECT_EQ(FD_WRITE, taken(server)) << "its peer connected, not it";
    closesocket(client);
    closesocket(server);
    closesocket(listener);
}

TEST_F(Details, EnumLeavesOtherErrorCodesAlone) {
    Pair pair = connected_pair(Path::kRing);
    select_events(pair.client, FD_WRITE);
    WSANETWORKEVENTS events;
    memset(&events, 0x5a, sizeof events);
    ASSERT_EQ(0, WSAEnumNetworkEvents(pair.client, event_, &events));
    for (int bit = 0; bit < FD_MAX_EVENTS; ++bit)
        EXPECT_EQ(bit == FD_WRITE_BIT ? 0 : 0x5a5a5a5a, events.iErrorCode[bit]) << bit;
}

TEST_P(OnBothPaths, CloseWakesSelectAndPoll) {
    for (const int how : {0, 1, 2}) {
        Pair pair = connected_pair(GetParam());
        const SOCKET s = pair.server;
        std::thread closer([&] {
            Sleep(50);
            pair.close_server();
        });
        if (how == 2) {
            WSAPOLLFD one{s, POLLRDNORM, 0};
            EXPECT_EQ(1, WSAPoll(&one, 1, kLong));
            EXPECT_EQ(POLLNVAL, one.revents);
        } else {
            fd_set set;
            FD_ZERO(&set);
            FD_SET(s, &set);
            const int found =
                select(0, how == 0 ? &set : nullptr, nullptr, how == 1 ? &set : nullptr, nullptr);
            const int error = WSAGetLastError();
            EXPECT_EQ(how == 0 ? 1 : SOCKET_ERROR, found);
            EXPECT_EQ(how == 0, FD_ISSET(s, &set));
            if (how == 1) {
                EXPECT_EQ(WSAENOTSOCK, error);
            }
        }
        closer.join();
    }
}

TEST_P(OnBothPaths, ApcsRunInsideBlockingCalls) {
    Pair pair = connected_pair(GetParam());
    struct Context {
        SOCKET peer;
        int runs;
    } context{pair.client, 0};
    const PAPCFUNC send_from_apc = [](ULONG_PTR pointer) {
        auto& mine = *reinterpret_cast<Context*>(pointer);
        ++mine.runs;
        send_all(mine.peer, "apc");
    };
    char bytes[8];
    ASSERT_NE(0U, QueueUserAPC(send_from_apc, GetCurrentThread(), reinterpret_cast<ULONG_PTR>(&context)));
    EXPECT_EQ(3, recv(pair.server, bytes, sizeof bytes, 0));
    EXPECT_EQ(1, context.runs);
    ASSERT_NE(0U, QueueUserAPC(send_from_apc, GetCurrentThread(), reinterpret_cast<ULONG_PTR>(&context)));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pair.server, &set);
    EXPECT_EQ(1, select(0, &set, nullptr, nullptr, nullptr));
    EXPECT_EQ(2, context.runs);
    // A call that need not wait leaves them for the next one that does.
    ASSERT_NE(0U, QueueUserAPC(send_from_apc, GetCurrentThread(), reinterpret_cast<ULONG_PTR>(&context)));
    EXPECT_EQ(3, recv(pair.server, bytes, sizeof bytes, 0));
    EXPECT_EQ(2, context.runs);
    SleepEx(0, TRUE);
    EXPECT_EQ(3, context.runs);
    EXPECT_EQ(3, recv(pair.server, bytes, sizeof bytes, 0));
}

TEST_P(OnBothPaths, AnApcOfAnotherThreadGetsIntoABlockingCall) {
    Pair pair = connected_pair(GetParam());
    static std::atomic<int> runs;
    runs = 0;
    struct Reader {
        SOCKET s;
        int got;
    } reader{pair.server, 0};
    HANDLE thread = CreateThread(
        nullptr, 0,
        [](LPVOID pointer) -> DWORD {
            auto& mine = *static_cast<Reader*>(pointer);
            char bytes[8];
            mine.got = recv(mine.s, bytes, sizeof bytes, 0);
            return 0;
        },
        &reader, 0, nullptr);
    ASSERT_NE(nullptr, thread);
    for (int i = 0; i < 20; ++i) {
        ASSERT_NE(0U, QueueUserAPC([](ULONG_PTR) { ++runs; }, thread, 0));
        while (runs <= i)
            Sleep(1);
    }
    send_all(pair.client, "end");
    EXPECT_EQ(DWORD{WAIT_OBJECT_0}, WaitForSingleObject(thread, kLong));
    EXPECT_EQ(3, reader.got);
    CloseHandle(thread);
}

TEST_F(Details, SelectWithOneSetGivenTwice) {
    Pair pair = connected_pair(Path::kRing);
    send_all(pair.client, "x");
    fd_set set;
    FD_ZERO(&set);
    set.fd_array[set.fd_count++] = pair.server;
    set.fd_array[set.fd_count++] = pair.server;
    EXPECT_EQ(1, select(0, &set, nullptr, nullptr, nullptr)) << "a socket is told once";
    FD_ZERO(&set);
    FD_SET(pair.server, &set);
    FD_SET(pair.client, &set);
    EXPECT_EQ(2, select(0, &set, &set, nullptr, nullptr)) << "both answers are in the set";
    EXPECT_TRUE(FD_ISSET(pair.client, &set));
    EXPECT_TRUE(FD_ISSET(pair.server, &set));
}

TEST_P(OnBothPaths, PollOfEndedConnections) {
    constexpr short kAll = POLLRDNORM | POLLRDBAND | POLLWRNORM;
    Pair pair = connected_pair(GetParam());
    const auto poll = [](SOCKET s, short events, DWORD timeout) {
        WSAPOLLFD one{s, events, -1};
        EXPECT_EQ(1, WSAPoll(&one, 1, static_cast<INT>(timeout)));
        return one.revents;
    };
    send_all(pair.client, "last");
    ASSERT_EQ(0, shutdown(pair.client, SD_SEND));
    EXPECT_EQ(POLLHUP, poll(pair.server, 0, kLong)) << "whether asked for or not";
    EXPECT_EQ(POLLRDNORM | POLLWRNORM | POLLHUP, poll(pair.server, kAll, kLong));
    EXPECT_EQ("last", receive_all(pair.server, 4));
    EXPECT_EQ(POLLHUP, poll(pair.server, POLLIN, kLong)) << "the end is nothing to be read";
    EXPECT_EQ(POLLWRNORM, poll(pair.client, kAll, 0));
    const linger hard{1, 0};
    ASSERT_EQ(
        0, setsockopt(pair.server, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&hard), sizeof hard));
    pair.close_server();
    char byte;
    EXPECT_EQ(SOCKET_ERROR, recv(pair.client, &byte, 1, 0));
    EXPECT_EQ(WSAECONNRESET, WSAGetLastError());
    EXPECT_EQ(POLLERR | POLLHUP | POLLWRNORM, poll(pair.client, kAll, 0)) << "it stays so";
}

TEST_F(Details, PollOfWhatIsNoSocket) {
    const SOCKET listener = listening_socket();
    WSAPOLLFD two[2] = {{INVALID_SOCKET, POLLERR, -1}, {listener, POLLIN, -1}};
    EXPECT_EQ(0, WSAPoll(two, 2, 0));
    EXPECT_EQ(POLLNVAL, two[0].revents) << "passed over: what it asks for is not looked at";
    EXPECT_EQ(0, two[1].revents);
    two[0] = {0x7ff0, POLLIN, -1};
    EXPECT_EQ(0, WSAPoll(two, 2, 0));
    EXPECT_EQ(POLLNVAL, two[0].revents) << "marked, not counted";
    two[0].events = POLLERR;
    EXPECT_EQ(SOCKET_ERROR, WSAPoll(two, 2, 0));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_EQ(0, two[0].revents | two[1].revents);
    two[1].fd = INVALID_SOCKET;
    EXPECT_EQ(SOCKET_ERROR, WSAPoll(two, 2, 0));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
    closesocket(listener);
}

TEST_P(OnBothPaths, GracefulEndsLeaveTheOtherDirection) {
    Pair pair = connected_pair(GetParam());
    // A receive that was begun before shutdown goes on, one after it does not begin.
    char bytes[8];
    WSABUF buffer{sizeof bytes, bytes};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    overlapped.hEvent = event_;
    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.client, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
    ASSERT_EQ(0, shutdown(pair.client, SD_RECEIVE));
    EXPECT_EQ(SOCKET_ERROR, recv(pair.client, bytes, 1, 0));
    EXPECT_EQ(WSAESHUTDOWN, WSAGetLastError());
    send_all(pair.server, "late");
    DWORD got = 0;
    EXPECT_TRUE(WSAGetOverlappedResult(pair.client, &overlapped, &got, TRUE, &flags));
    EXPECT_EQ(4U, got);

    // DisconnectEx ends the sending direction.
    const auto disconnect_ex = extension<LPFN_DISCONNECTEX>(pair.server, WSAID_DISCONNECTEX);
    ASSERT_TRUE(disconnect_ex(pair.server, nullptr, 0, 0));
    send_all(pair.client, "answer");
    EXPECT_EQ("answer", receive_all(pair.server, 6));
}

TEST_P(OnBothPaths, ThePeersNameStaysUntilTheSocketIsClosed) {
    Pair pair = connected_pair(GetParam());
    const sockaddr_in client = name_of(pair.client);
    const auto peer_port = [](SOCKET s) {
        sockaddr_in address{};
        int size = sizeof address;
        EXPECT_EQ(0, getpeername(s, reinterpret_cast<sockaddr*>(&address), &size)) << WSAGetLastError();
        return address.sin_port;
    };
    const linger hard{1, 0};
    ASSERT_EQ(
        0, setsockopt(pair.client, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&hard), sizeof hard));
    pair.close_client();
    char byte;
    EXPECT_EQ(SOCKET_ERROR, recv(pair.server, &byte, 1, 0));
    EXPECT_EQ(client.sin_port, peer_port(pair.server));
}

TEST_F(Details, NothingMovesWhileAConnectIsUnderWay) {
    // Nobody answers there, so the connect stays under way.
    const SOCKET listener = bound_socket();
    ASSERT_EQ(0, listen(listener, 1));
    const sockaddr_in address = name_of(listener);
    std::vector<SOCKET> clients;
    SOCKET waiting = INVALID_SOCKET;
    for (int i = 0; i < 64 && waiting == INVALID_SOCKET; ++i) {
        const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
        clients.push_back(s);
        u_long on = 1;
        ASSERT_EQ(0, ioctlsocket(s, FIONBIO, &on));
        static_cast<void>(connect(s, generic(address), sizeof address));
        fd_set set;
        FD_ZERO(&set);
        FD_SET(s, &set);
        const timeval some{0, 100'000};
        if (select(0, nullptr, &set, nullptr, const_cast<timeval*>(&some)) == 0)
            waiting = s;
    }
    ASSERT_NE(INVALID_SOCKET, waiting);
    char byte = 0;
    EXPECT_EQ(SOCKET_ERROR, recv(waiting, &byte, 1, 0));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, send(waiting, &byte, 1, 0));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    for (const SOCKET s : clients)
        closesocket(s);
    closesocket(listener);
}

TEST_F(Details, ASuccessClearsTheLastError) {
    Pair pair = connected_pair(Path::kRing);
    const auto clears = [](int result) {
        EXPECT_NE(SOCKET_ERROR, result);
        const int error = WSAGetLastError();
        WSASetLastError(12345);
        return error == 0;
    };
    char bytes[8];
    int value = 0;
    int size = sizeof value;
    clears(0);
    EXPECT_TRUE(clears(send(pair.client, "x", 1, 0)));
    EXPECT_TRUE(clears(recv(pair.server, bytes, 1, 0)));
    EXPECT_TRUE(clears(getsockopt(pair.client, SOL_SOCKET, SO_TYPE, reinterpret_cast<char*>(&value), &size)));
    WSAPOLLFD one{pair.client, POLLOUT, 0};
    EXPECT_TRUE(clears(WSAPoll(&one, 1, 0)));
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(0, WSAGetLastError());
    WSASetLastError(12345);
    closesocket(s);
    EXPECT_EQ(12345, WSAGetLastError()) << "programs close first and ask then";
}

TEST_F(Details, OpenTypeIsTheThreads) {
    int type = SO_SYNCHRONOUS_NONALERT;
    int size = sizeof type;
    EXPECT_EQ(0, setsockopt(INVALID_SOCKET, SOL_SOCKET, SO_OPENTYPE, reinterpret_cast<char*>(&type), size));
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(nullptr, CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), nullptr, 0, 0));
    closesocket(s);
    type = 77;
    EXPECT_EQ(0, getsockopt(INVALID_SOCKET, SOL_SOCKET, SO_OPENTYPE, reinterpret_cast<char*>(&type), &size));
    EXPECT_EQ(SO_SYNCHRONOUS_NONALERT, type);
    std::thread([&] {
        EXPECT_EQ(0,
                  getsockopt(INVALID_SOCKET, SOL_SOCKET, SO_OPENTYPE, reinterpret_cast<char*>(&type), &size));
        EXPECT_EQ(0, type);
    }).join();
    type = 0;
    EXPECT_EQ(0, setsockopt(INVALID_SOCKET, SOL_SOCKET, SO_OPENTYPE, reinterpret_cast<char*>(&type), size));
}

}  // namespace
