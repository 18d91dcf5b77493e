// The quick ways through the door, under everything that may happen to them meanwhile: sockets that a waiting
// thread looks at itself, packets that take no queue, look-ups that do not count.
#include <atomic>

#include "common.h"

namespace test {
namespace {

class Hot : public Winsock {};

HANDLE handle_of(SOCKET s) { return reinterpret_cast<HANDLE>(s); }

/// One end on a port of its own, with a receive of one byte posted.
struct End {
    SOCKET s;
    HANDLE port;
    OVERLAPPED receiving{};
    OVERLAPPED sending{};
    char byte = 0;
    char out = 0;

    explicit End(SOCKET socket) : s(socket), port(CreateIoCompletionPort(handle_of(socket), nullptr, 1, 1)) {
        SetFileCompletionNotificationModes(handle_of(s), FILE_SKIP_COMPLETION_PORT_ON_SUCCESS);
    }
    ~End() { CloseHandle(port); }
    End(const End&) = delete;
    End& operator=(const End&) = delete;

    /// @return whether it is over already.
    bool receive() {
        WSABUF buffer = {1, &byte};
        DWORD flags = 0;
        DWORD got;
        if (WSARecv(s, &buffer, 1, &got, &flags, &receiving, nullptr) == 0)
            return true;
        EXPECT_EQ(WSA_IO_PENDING, WSAGetLastError());
        return false;
    }
    void send(char what) {
        out = what;
        WSABUF buffer = {1, &out};
        DWORD sent;
        EXPECT_EQ(0, WSASend(s, &buffer, 1, &sent, 0, &sending, nullptr)) << WSAGetLastError();
    }
};

/// Bytes to and fro between two threads, each with its port.
constexpr int kRounds = 2000;

/// What others post arrives, each once, while the thread lives on its hot socket.
TEST_F(Hot, WhatIsPostedMeanwhileArrives) {
    Pair pair = connected_pair();
    End server(pair.server);
    End client(pair.client);
    constexpr int kPosts = 500;
    std::thread answering([&] {
        for (int i = 0; i < kRounds; ++i) {
            bool over = server.receive();
            while (!over) {
                DWORD bytes;
                ULONG_PTR key;
                LPOVERLAPPED got;
                if (!GetQueuedCompletionStatus(server.port, &bytes, &key, &got, 10000))
                    return;
                over = got == &server.receiving;
            }
            server.send(static_cast<char>(server.byte + 1));
        }
    });
    std::thread posting([&] {
        for (int i = 0; i < kPosts; ++i) {
            EXPECT_TRUE(PostQueuedCompletionStatus(client.port, static_cast<DWORD>(i), 77, nullptr));
            if (i % 16 == 0)
                std::this_thread::yield();
        }
    });
    DWORD posted = 0;
    const auto note = [&](const OVERLAPPED_ENTRY& entry) {
        if (entry.lpCompletionKey != 77)
            return entry.lpOverlapped == &client.receiving;
        EXPECT_EQ(posted, entry.dwNumberOfBytesTransferred) << "in their order";
        ++posted;
        return false;
    };
    for (int i = 0; i < kRounds; ++i) {
        bool over = client.receive();
        client.send(static_cast<char>(i));
        while (!over) {
            OVERLAPPED_ENTRY entries[3];
            ULONG count = 0;
            ASSERT_TRUE(GetQueuedCompletionStatusEx(client.port, entries, 3, &count, 10000, FALSE));
            for (ULONG k = 0; k < count; ++k)
                over = note(entries[k]) || over;
        }
        ASSERT_EQ(static_cast<char>(i + 1), client.byte);
    }
    while (posted < kPosts) {
        OVERLAPPED_ENTRY entry;
        ULONG count = 0;
        ASSERT_TRUE(GetQueuedCompletionStatusEx(client.port, &entry, 1, &count, 10000, FALSE));
        note(entry);
    }
    answering.join();
    posting.join();
}

/// A packet that was posted before the bytes were sent is not overtaken by their receive.
TEST_F(Hot, NoReceiveOvertakesWhatWasPostedBefore) {
    Pair pair = connected_pair();
    End server(pair.server);
    std::thread other([&] {
        for (int i = 0; i < kRounds; ++i) {
            PostQueuedCompletionStatus(server.port, static_cast<DWORD>(i), 77, nullptr);
            char byte = static_cast<char>(i);
            send(pair.client, &byte, 1, 0);
            recv(pair.client, &byte, 1, 0);
        }
    });
    for (int i = 0; i < kRounds; ++i) {
        bool received = server.receive();
        bool posted = false;
        while (!received || !posted) {
            DWORD bytes;
            ULONG_PTR key;
            LPOVERLAPPED got;
            ASSERT_TRUE(GetQueuedCompletionStatus(server.port, &bytes, &key, &got, 10000));
            if (key == 77) {
                posted = true;
            } else {
                received = true;
                EXPECT_TRUE(posted);
            }
        }
        send(pair.server, &server.byte, 1, 0);
    }
    other.join();
}

/// Many connections; most go quiet, are left to the bell, and come back.
TEST_F(Hot, QuietOnesComeBack) {
    constexpr int kPairs = 24;
    std::vector<Pair> pairs;
    HANDLE port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1);
    struct Receive {
        OVERLAPPED overlapped{};
        char byte = 0;
    };
    std::vector<Receive> receives(kPairs);
    const auto post = [&](size_t i) {
        WSABUF buffer = {1, &receives[i].byte};
        DWORD flags = 0;
        if (WSARecv(pairs[i].server, &buffer, 1, nullptr, &flags, &receives[i].overlapped, nullptr) != 0) {
            EXPECT_EQ(WSA_IO_PENDING, WSAGetLastError());
        }
    };
    for (size_t i = 0; i < kPairs; ++i) {
        pairs.push_back(connected_pair());
        CreateIoCompletionPort(handle_of(pairs[i].server), port, i, 0);
        post(i);
    }
    const auto exchange = [&](size_t i) {
        send_all(pairs[i].client, "x");
        DWORD bytes;
        ULONG_PTR key = kPairs;
        LPOVERLAPPED got;
        ASSERT_TRUE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 10000));
        ASSERT_EQ(i, key);
        ASSERT_EQ(&receives[i].overlapped, got);
        post(i);
    };
    for (int round = 0; round < 3; ++round) {
        for (size_t i = 0; i < kPairs; ++i)
            exchange(i);
        for (int i = 0; i < 3000; ++i)
            exchange(0);
    }
    for (size_t i = 0; i < kPairs; ++i)
        CancelIo(handle_of(pairs[i].server));
    CloseHandle(port);
}

/// A reset, and an end, of a connection that is looked at.
TEST_F(Hot, TheEndIsSeen) {
    for (const bool reset : {false, true}) {
        Pair pair = connected_pair();
        End server(pair.server);
        for (int i = 0; i < 50; ++i) {
            const bool over = server.receive();
            send_all(pair.client, "x");
            DWORD bytes;
            ULONG_PTR key;
            LPOVERLAPPED got;
            if (!over) {
                ASSERT_TRUE(GetQueuedCompletionStatus(server.port, &bytes, &key, &got, 10000));
            }
        }
        ASSERT_FALSE(server.receive());
        if (reset) {
            const LINGER hard = {1, 0};
            setsockopt(pair.client, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&hard), sizeof hard);
        }
        pair.close_client();
        DWORD bytes = 9;
        ULONG_PTR key;
        LPOVERLAPPED got = nullptr;
        const BOOL good = GetQueuedCompletionStatus(server.port, &bytes, &key, &got, 10000);
        EXPECT_EQ(!reset, good != FALSE);
        EXPECT_EQ(&server.receiving, got);
        if (reset) {
            EXPECT_EQ(static_cast<DWORD>(ERROR_NETNAME_DELETED), GetLastError());
        } else {
            EXPECT_EQ(0u, bytes);
        }
    }
}

/// Sockets, and the events of their operations, are closed while other threads use their handles.
TEST_F(Hot, ClosedWhileOthersUseThem) {
    std::atomic<SOCKET> shared{INVALID_SOCKET};
    std::atomic<WSAEVENT> event{WSACreateEvent()};
    std::atomic<bool> over{false};
    std::vector<std::thread> users;
    for (int user = 0; user < 3; ++user)
        users.emplace_back([&, user] {
            OVERLAPPED overlapped[64] = {};
            char bytes[64];
            for (unsigned i = 0; !over.load(); ++i) {
                const SOCKET s = shared.load();
                OVERLAPPED& one = overlapped[i % 64];
                if (user == 0) {
                    WSABUF buffer = {1, &bytes[i % 64]};
                    DWORD flags = 0;
                    if (!HasOverlappedIoCompleted(&one)) {
                        std::this_thread::yield();
                        continue;
                    }
                    one.hEvent = event.load();
                    WSARecv(s, &buffer, 1, nullptr, &flags, &one, nullptr);
                } else if (user == 1) {
                    WSABUF buffer = {1, bytes};
                    DWORD sent;
                    one = {};
                    // Few enough that none must wait.
                    if (i % 64 == 0)
                        WSASend(s, &buffer, 1, &sent, 0, nullptr, nullptr);
                    else
                        std::this_thread::yield();
                } else {
                    WSASetEvent(event.load());
                    u_long waiting;
                    ioctlsocket(s, FIONREAD, &waiting);
                }
            }
            EXPECT_TRUE(eventually([&] {
                for (OVERLAPPED& one : overlapped)
                    if (!HasOverlappedIoCompleted(&one))
                        return false;
                return true;
            })) << "closing ends all of them";
        });
    for (int i = 0; i < 60; ++i) {
        Pair pair = connected_pair(i % 4 == 0 ? Path::kKernel : Path::kRing);
        shared.store(pair.server);
        send(pair.client, "12345678", 8, 0);
        std::this_thread::sleep_for(std::chrono::microseconds(500));
        WSAEVENT before = event.exchange(WSACreateEvent());
        pair.close_server();
        WSACloseEvent(before);
    }
    over.store(true);
    for (std::thread& user : users)
        user.join();
    WSACloseEvent(event.load());
}

/// What a thread finds on its way to sleep, beside its hot sockets, is a packet for itself.
TEST_F(Hot, WhatIsNotHotIsNotSleptOver) {
    Pair hot = connected_pair();
    Pair cold = connected_pair(Path::kKernel);
    End quiet(hot.server);
    ASSERT_EQ(quiet.port, CreateIoCompletionPort(handle_of(cold.server), quiet.port, 2, 0));
    ASSERT_FALSE(quiet.receive());
    HANDLE elsewhere = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 0);
    constexpr int kTimes = 200;
    int late = 0;
    for (int i = 0; i < kTimes; ++i) {
        OVERLAPPED overlapped{};
        char byte;
        WSABUF buffer = {1, &byte};
        DWORD flags = 0;
        ASSERT_EQ(SOCKET_ERROR, WSARecv(cold.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
        DWORD bytes;
        ULONG_PTR key;
        LPOVERLAPPED got = nullptr;
        // A thread that was at another port does not go the quick way.
        PostQueuedCompletionStatus(elsewhere, 0, 0, nullptr);
        ASSERT_TRUE(GetQueuedCompletionStatus(elsewhere, &bytes, &key, &got, 10000));
        ASSERT_EQ(1, send(cold.client, "c", 1, 0));
        // Long enough for it to ask the set first.
        const auto begin = std::chrono::steady_clock::now();
        while (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(150)) {
        }
        const ULONGLONG called = GetTickCount64();
        ASSERT_TRUE(GetQueuedCompletionStatus(quiet.port, &bytes, &key, &got, 5000)) << i;
        EXPECT_EQ(&overlapped, got);
        late += GetTickCount64() - called > 3 ? 1 : 0;
    }
    // One that sleeps over its packet sleeps for good, or until the engine comes by at its next tick.
    EXPECT_LT(late, kTimes / 2);
    CloseHandle(elsewhere);
}

}  // namespace
}  // namespace test
