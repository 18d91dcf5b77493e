// WSAEventSelect and WSAEnumNetworkEvents: what is recorded when, and what enables it again; events and
// waits.
#include <atomic>

#include "common.h"

namespace test {
namespace {

class Events : public Winsock {
protected:
    void SetUp() override {
        Winsock::SetUp();
        event_ = WSACreateEvent();
    }
    void TearDown() override {
        WSACloseEvent(event_);
        Winsock::TearDown();
    }
    bool is_set(DWORD timeout = 0) {
        return WSAWaitForMultipleEvents(1, &event_, FALSE, timeout, FALSE) == WSA_WAIT_EVENT_0;
    }
    WSANETWORKEVENTS take(SOCKET s) {
        WSANETWORKEVENTS events{};
        EXPECT_EQ(0, WSAEnumNetworkEvents(s, event_, &events)) << WSAGetLastError();
        EXPECT_FALSE(is_set()) << "reset in the same breath";
        return events;
    }
    WSAEVENT event_ = WSA_INVALID_EVENT;
};

TEST_F(Events, ReadIsRecordedOncePerReceive) {
    Pair pair = connected_pair();
    ASSERT_EQ(0, WSAEventSelect(pair.server, event_, FD_READ | FD_CLOSE));
    EXPECT_FALSE(is_set());
    send_all(pair.client, "abcdef");
    EXPECT_TRUE(is_set(10000));
    EXPECT_EQ(FD_READ, take(pair.server).lNetworkEvents);
    EXPECT_FALSE(is_set(20)) << "not enabled yet";
    EXPECT_EQ(0, take(pair.server).lNetworkEvents);
    char bytes[4];
    EXPECT_EQ(4, recv(pair.server, bytes, 4, 0));
    EXPECT_TRUE(is_set()) << "bytes are left";
    EXPECT_EQ(FD_READ, take(pair.server).lNetworkEvents);
    EXPECT_EQ("ef", receive_all(pair.server, 2));
    take(pair.server);
    EXPECT_FALSE(is_set());
    send_all(pair.client, "j");
    EXPECT_TRUE(is_set(10000));
}

TEST_F(Events, TheSocketBecomesNonBlocking) {
    Pair pair = connected_pair();
    ASSERT_EQ(0, WSAEventSelect(pair.server, event_, FD_READ));
    char byte;
    EXPECT_EQ(SOCKET_ERROR, recv(pair.server, &byte, 1, 0));
    EXPECT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
    u_long off = 0;
    EXPECT_EQ(SOCKET_ERROR, ioctlsocket(pair.server, FIONBIO, &off));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    ASSERT_EQ(0, WSAEventSelect(pair.server, nullptr, 0));
    EXPECT_EQ(0, ioctlsocket(pair.server, FIONBIO, &off));
}

TEST_F(Events, WriteAtOnceAndAfterAFullQueue) {
    Pair pair = connected_pair();
    ASSERT_EQ(0, WSAEventSelect(pair.client, event_, FD_WRITE));
    EXPECT_TRUE(is_set(10000));
    EXPECT_EQ(FD_WRITE, take(pair.client).lNetworkEvents);
    EXPECT_FALSE(is_set(20)) << "once";
    const std::string block(1 << 20, 'w');
    size_t sent = 0;
    for (;;) {
        const int result = send(pair.client, block.data(), static_cast<int>(block.size()), 0);
        if (result < 0)
            break;
        sent += static_cast<size_t>(result);
        ASSERT_LT(sent, size_t{1} << 30);
    }
    EXPECT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
    EXPECT_FALSE(is_set(20));
    EXPECT_EQ(sent, receive_all(pair.server, sent).size());
    EXPECT_TRUE(is_set(10000));
    EXPECT_EQ(FD_WRITE, take(pair.client).lNetworkEvents);
}

/// Each time: whether the last bytes that were kept fill the queue to its end, or not.
TEST_F(Events, WriteAfterAFullQueueHoweverItBecameFull) {
    const std::string block(70000, 'w');
    for (int i = 0; i < 12; ++i) {
        Pair pair = connected_pair();
        ASSERT_EQ(0, WSAEventSelect(pair.client, event_, FD_WRITE | FD_READ | FD_CLOSE));
        EXPECT_EQ(FD_WRITE, take(pair.client).lNetworkEvents);
        size_t sent = 0;
        while (send(pair.client, block.data(), static_cast<int>(block.size()), 0) > 0)
            sent += block.size();
        ASSERT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
        Sleep(25);  // by then the engine sends what is left over
        for (size_t got = 0; got < sent; got += block.size())
            ASSERT_EQ(block.size(), receive_all(pair.server, block.size()).size());
        ASSERT_TRUE(is_set(5000)) << i;
        EXPECT_EQ(FD_WRITE, take(pair.client).lNetworkEvents);
    }
}

/// Whoever looks meanwhile, a connection that was refused is never one that is there.
TEST_F(Events, ARefusalIsTakenForNothingElse) {
    std::atomic<SOCKET> shared{INVALID_SOCKET};
    std::atomic<bool> over{false};
    std::thread looking([&] {
        while (!over.load()) {
            DWORD seconds = 0;
            int size = sizeof seconds;
            getsockopt(shared.load(), SOL_SOCKET, SO_CONNECT_TIME, reinterpret_cast<char*>(&seconds), &size);
        }
    });
    const SOCKET nobody = bound_socket();  // so that no one else listens there
    const sockaddr_in address = name_of(nobody);
    for (int i = 0; i < 3000; ++i) {
        const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
        EXPECT_EQ(0, opt_in(s));
        EXPECT_EQ(0, WSAEventSelect(s, event_, FD_CONNECT | FD_WRITE | FD_CLOSE));
        shared.store(s);
        EXPECT_EQ(SOCKET_ERROR, connect(s, generic(address), sizeof address));
        EXPECT_TRUE(is_set(10000));
        const WSANETWORKEVENTS events = take(s);
        EXPECT_EQ(FD_CONNECT, events.lNetworkEvents);
        EXPECT_EQ(WSAECONNREFUSED, events.iErrorCode[FD_CONNECT_BIT]);
        int error = 0;
        int size = sizeof error;
        EXPECT_EQ(0, getsockopt(s, SOL_SOCKET, SO_ERROR, reinterpret_cast<char*>(&error), &size));
        EXPECT_EQ(WSAECONNREFUSED, error);
        shared.store(INVALID_SOCKET);
        closesocket(s);
        if (HasFailure())
            break;
    }
    over.store(true);
    looking.join();
    closesocket(nobody);
}

TEST_F(Events, CloseOnceAndAfterTheLastByte) {
    Pair pair = connected_pair();
    ASSERT_EQ(0, WSAEventSelect(pair.server, event_, FD_READ | FD_CLOSE));
    send_all(pair.client, "last");
    pair.close_client();
    EXPECT_TRUE(is_set(10000));
    WSANETWORKEVENTS events = take(pair.server);
    EXPECT_EQ(FD_READ, events.lNetworkEvents);
    EXPECT_EQ("last", receive_all(pair.server, 4));
    EXPECT_TRUE(is_set(10000));
    events = take(pair.server);
    EXPECT_EQ(FD_CLOSE, events.lNetworkEvents);
    EXPECT_EQ(0, events.iErrorCode[FD_CLOSE_BIT]);
    EXPECT_FALSE(is_set(20));
}

TEST_F(Events, CloseWithAReset) {
    Pair pair = connected_pair();
    ASSERT_EQ(0, WSAEventSelect(pair.server, event_, FD_READ | FD_CLOSE));
    const linger hard{1, 0};
    setsockopt(pair.client, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&hard), sizeof hard);
    pair.close_client();
    EXPECT_TRUE(is_set(10000));
    const WSANETWORKEVENTS events = take(pair.server);
    EXPECT_EQ(FD_CLOSE, events.lNetworkEvents);
    EXPECT_EQ(WSAECONNRESET, events.iErrorCode[FD_CLOSE_BIT]);
}

TEST_F(Events, ConnectAndAccept) {
    const SOCKET listener = listening_socket();
    WSAEVENT at_listener = WSACreateEvent();
    ASSERT_EQ(0, WSAEventSelect(listener, at_listener, FD_ACCEPT));
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(0, opt_in(client));
    ASSERT_EQ(0, WSAEventSelect(client, event_, FD_CONNECT | FD_WRITE | FD_READ));
    const sockaddr_in address = name_of(listener);
    if (connect(client, generic(address), sizeof address) != 0) {
        ASSERT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
    }
    EXPECT_TRUE(is_set(10000));
    LONG seen = 0;
    EXPECT_TRUE(eventually([&] { return ((seen |= take(client).lNetworkEvents) & FD_WRITE) != 0; }));
    EXPECT_EQ(FD_CONNECT | FD_WRITE, seen);
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &at_listener, FALSE, 10000, FALSE));
    WSANETWORKEVENTS events{};
    ASSERT_EQ(0, WSAEnumNetworkEvents(listener, at_listener, &events));
    EXPECT_EQ(FD_ACCEPT, events.lNetworkEvents);
    const SOCKET server = accept(listener, nullptr, nullptr);
    ASSERT_NE(INVALID_SOCKET, server);
    ASSERT_EQ(0, WSAEventSelect(server, nullptr, 0));  // it had inherited the listener's
    send_all(server, "hello");
    EXPECT_TRUE(is_set(10000));
    EXPECT_EQ(FD_READ, take(client).lNetworkEvents);
    closesocket(client);
    closesocket(server);
    closesocket(listener);
    WSACloseEvent(at_listener);
}

TEST_F(Events, ConnectRefused) {
    const SOCKET nobody = bound_socket();
    const sockaddr_in address = name_of(nobody);
    const SOCKET client = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(0, WSAEventSelect(client, event_, FD_CONNECT | FD_WRITE));
    EXPECT_EQ(SOCKET_ERROR, connect(client, generic(address), sizeof address));
    EXPECT_EQ(WSAEWOULDBLOCK, WSAGetLastError());
    EXPECT_TRUE(is_set(10000));
    const WSANETWORKEVENTS events = take(client);
    EXPECT_EQ(FD_CONNECT, events.lNetworkEvents);
    EXPECT_EQ(WSAECONNREFUSED, events.iErrorCode[FD_CONNECT_BIT]);
    closesocket(client);
    closesocket(nobody);
}

TEST_F(Events, Errors) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(SOCKET_ERROR, WSAEventSelect(s, nullptr, FD_READ));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, WSAEventSelect(s, reinterpret_cast<WSAEVENT>(s), FD_READ));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR,
              WSAEnumNetworkEvents(s, event_, reinterpret_cast<WSANETWORKEVENTS*>(no_memory())));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, WSAEventSelect(INVALID_SOCKET, event_, FD_READ));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
    closesocket(s);
}

TEST_F(Events, EventObjects) {
    EXPECT_FALSE(is_set());
    EXPECT_TRUE(WSASetEvent(event_));
    EXPECT_TRUE(is_set());
    EXPECT_TRUE(is_set()) << "stays";
    EXPECT_TRUE(WSAResetEvent(event_));
    EXPECT_FALSE(is_set());
    HANDLE once = CreateEventW(nullptr, FALSE, TRUE, nullptr);
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObject(once, 0));
    EXPECT_EQ(static_cast<DWORD>(WAIT_TIMEOUT), WaitForSingleObject(once, 0)) << "one wait resets it";
    const HANDLE both[2] = {once, event_};
    SetEvent(event_);
    EXPECT_EQ(WAIT_OBJECT_0 + 1, WaitForMultipleObjects(2, both, FALSE, 0));
    EXPECT_EQ(static_cast<DWORD>(WAIT_TIMEOUT), WaitForMultipleObjects(2, both, TRUE, 10));
    SetEvent(once);
    EXPECT_EQ(WAIT_OBJECT_0, WaitForMultipleObjects(2, both, TRUE, 0));
    std::thread setter([&] {
        Sleep(20);
        SetEvent(once);
    });
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObject(once, INFINITE));
    setter.join();
    EXPECT_EQ(WAIT_FAILED, WaitForMultipleObjects(0, both, FALSE, 0));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_PARAMETER), GetLastError());
    CloseHandle(once);
    EXPECT_EQ(WAIT_FAILED, WaitForSingleObject(once, 0));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_HANDLE), GetLastError());
    EXPECT_FALSE(WSASetEvent(once));
    EXPECT_EQ(nullptr, CreateEventA(nullptr, TRUE, FALSE, "named"));
}

DWORD WINAPI answer(LPVOID parameter) {
    Sleep(10);
    return *static_cast<DWORD*>(parameter);
}
ULONG_PTR apc_data = 0;
void CALLBACK note_apc(ULONG_PTR data) { apc_data = data; }
DWORD WINAPI sleep_alertably(LPVOID) { return SleepEx(INFINITE, TRUE); }

TEST_F(Events, Threads) {
    DWORD value = 42;
    HANDLE thread = CreateThread(nullptr, 0, answer, &value, 0, nullptr);
    ASSERT_NE(nullptr, thread);
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObject(thread, 10000));
    DWORD code = 0;
    EXPECT_TRUE(GetExitCodeThread(thread, &code));
    EXPECT_EQ(42u, code);
    EXPECT_EQ(0u, QueueUserAPC(note_apc, thread, 1)) << "it has ended";
    EXPECT_TRUE(CloseHandle(thread));
    HANDLE sleeper = CreateThread(nullptr, 0, sleep_alertably, nullptr, 0, nullptr);
    EXPECT_NE(0u, QueueUserAPC(note_apc, sleeper, 7));
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObject(sleeper, 10000));
    EXPECT_TRUE(GetExitCodeThread(sleeper, &code));
    EXPECT_EQ(WAIT_IO_COMPLETION, code);
    EXPECT_EQ(7u, apc_data);
    CloseHandle(sleeper);
    EXPECT_NE(0u, QueueUserAPC(note_apc, GetCurrentThread(), 8));
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(0, TRUE));
    EXPECT_EQ(8u, apc_data);
}

/// As on NT: an alertable wait whose object is set, or whose port has a packet, leaves routines queued.
TEST_F(Events, WhatIsSetGoesBeforeRoutines) {
    apc_data = 0;
    WSASetEvent(event_);
    EXPECT_NE(0u, QueueUserAPC(note_apc, GetCurrentThread(), 9));
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event_, FALSE, 10000, TRUE));
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObjectEx(event_, 0, TRUE));
    HANDLE port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 0);
    EXPECT_TRUE(PostQueuedCompletionStatus(port, 1, 2, nullptr));
    OVERLAPPED_ENTRY entry;
    ULONG count = 0;
    EXPECT_TRUE(GetQueuedCompletionStatusEx(port, &entry, 1, &count, 10000, TRUE));
    EXPECT_EQ(0u, apc_data);
    EXPECT_FALSE(GetQueuedCompletionStatusEx(port, &entry, 1, &count, 10000, TRUE));
    EXPECT_EQ(WAIT_IO_COMPLETION, GetLastError());
    EXPECT_EQ(9u, apc_data);
    WSAResetEvent(event_);
    EXPECT_NE(0u, QueueUserAPC(note_apc, GetCurrentThread(), 10));
    EXPECT_EQ(WAIT_IO_COMPLETION, WaitForSingleObjectEx(event_, 0, TRUE));
    EXPECT_EQ(10u, apc_data);
    CloseHandle(port);
}

}  // namespace
}  // namespace test
