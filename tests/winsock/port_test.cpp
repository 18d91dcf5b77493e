// Completion ports.
#include "common.h"

#include <atomic>
#include <mutex>
#include <random>
#include <set>

namespace test {
namespace {

class Port : public Winsock {
protected:
    void SetUp() override {
        Winsock::SetUp();
        port_ = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 0);
        ASSERT_NE(nullptr, port_);
    }
    void TearDown() override {
        if (port_ != nullptr)
            CloseHandle(port_);
        Winsock::TearDown();
    }
    void join(SOCKET s, ULONG_PTR key) {
        ASSERT_EQ(port_, CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), port_, key, 0))
            << GetLastError();
    }
    struct Packet {
        BOOL good;
        DWORD error;
        DWORD bytes = 99;
        ULONG_PTR key = 99;
        OVERLAPPED* overlapped = nullptr;
    };
    Packet take(DWORD timeout = INFINITE) {
        Packet packet{};
        SetLastError(0);
        packet.good =
            GetQueuedCompletionStatus(port_, &packet.bytes, &packet.key, &packet.overlapped, timeout);
        packet.error = GetLastError();
        return packet;
    }
    void expect_none(DWORD timeout = 0) {
        const Packet packet = take(timeout);
        EXPECT_FALSE(packet.good);
        EXPECT_EQ(nullptr, packet.overlapped);
        EXPECT_EQ(static_cast<DWORD>(WAIT_TIMEOUT), packet.error);
    }
    HANDLE port_ = nullptr;
};

TEST_F(Port, PostAndTake) {
    OVERLAPPED one{};
    EXPECT_TRUE(PostQueuedCompletionStatus(port_, 17, 42, &one));
    EXPECT_TRUE(PostQueuedCompletionStatus(port_, 18, 43, nullptr));
    Packet packet = take();
    EXPECT_TRUE(packet.good);
    EXPECT_EQ(17u, packet.bytes);
    EXPECT_EQ(42u, packet.key);
    EXPECT_EQ(&one, packet.overlapped);
    packet = take();
    EXPECT_TRUE(packet.good);
    EXPECT_EQ(18u, packet.bytes);
    EXPECT_EQ(nullptr, packet.overlapped);
    expect_none();
}

TEST_F(Port, Timeouts) {
    expect_none(0);
    const auto start = std::chrono::steady_clock::now();
    expect_none(50);
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(49));
}

TEST_F(Port, PostWakesAWaiter) {
    std::thread poster([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        PostQueuedCompletionStatus(port_, 1, 2, nullptr);
    });
    EXPECT_EQ(2u, take().key);
    poster.join();
}

TEST_F(Port, SeveralAtOnce) {
    for (ULONG_PTR i = 0; i < 10; ++i)
        PostQueuedCompletionStatus(port_, 0, i, nullptr);
    OVERLAPPED_ENTRY entries[8];
    ULONG removed = 0;
    EXPECT_TRUE(GetQueuedCompletionStatusEx(port_, entries, 8, &removed, 0, FALSE));
    EXPECT_EQ(8u, removed);
    EXPECT_EQ(7u, entries[7].lpCompletionKey);
    EXPECT_TRUE(GetQueuedCompletionStatusEx(port_, entries, 8, &removed, 0, FALSE));
    EXPECT_EQ(2u, removed);
    EXPECT_FALSE(GetQueuedCompletionStatusEx(port_, entries, 8, &removed, 0, FALSE));
    EXPECT_EQ(static_cast<DWORD>(WAIT_TIMEOUT), GetLastError());
    EXPECT_FALSE(GetQueuedCompletionStatusEx(port_, entries, 0, &removed, 0, FALSE));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_PARAMETER), GetLastError());
}

TEST_F(Port, BadHandles) {
    DWORD bytes;
    ULONG_PTR key;
    LPOVERLAPPED overlapped;
    EXPECT_FALSE(GetQueuedCompletionStatus(nullptr, &bytes, &key, &overlapped, 0));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_HANDLE), GetLastError());
    EXPECT_FALSE(PostQueuedCompletionStatus(INVALID_HANDLE_VALUE, 0, 0, nullptr));
    EXPECT_EQ(nullptr, CreateIoCompletionPort(reinterpret_cast<HANDLE>(0x7ff8), port_, 0, 0));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_HANDLE), GetLastError());
    const SOCKET plain = WSASocketW(AF_INET, SOCK_STREAM, 0, nullptr, 0, 0);
    EXPECT_EQ(nullptr, CreateIoCompletionPort(reinterpret_cast<HANDLE>(plain), port_, 0, 0));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_PARAMETER), GetLastError()) << "no overlapped attribute";
    closesocket(plain);
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    join(s, 1);
    EXPECT_EQ(nullptr, CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), port_, 2, 0)) << "once";
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_PARAMETER), GetLastError());
    closesocket(s);
    EXPECT_FALSE(CloseHandle(nullptr));
}

TEST_F(Port, PortAndSocketInOneCall) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    HANDLE own = CreateIoCompletionPort(reinterpret_cast<HANDLE>(s), nullptr, 5, 1);
    ASSERT_NE(nullptr, own);
    closesocket(s);
    EXPECT_TRUE(CloseHandle(own));
}

TEST_F(Port, PacketForImmediateSuccess) {
    Pair pair = connected_pair();
    join(pair.server, 11);
    char bytes[] = "immediate";
    WSABUF buffer{9, bytes};
    OVERLAPPED overlapped{};
    DWORD sent = 0;
    EXPECT_EQ(0, WSASend(pair.server, &buffer, 1, &sent, 0, &overlapped, nullptr));
    EXPECT_EQ(9u, sent);
    const Packet packet = take(0);
    EXPECT_TRUE(packet.good);
    EXPECT_EQ(9u, packet.bytes);
    EXPECT_EQ(11u, packet.key);
    EXPECT_EQ(&overlapped, packet.overlapped);
    expect_none();
}

TEST_F(Port, NoPacketForImmediateSuccessIfSwitchedOff) {
    Pair pair = connected_pair();
    join(pair.server, 11);
    ASSERT_TRUE(SetFileCompletionNotificationModes(reinterpret_cast<HANDLE>(pair.server),
                                                   FILE_SKIP_COMPLETION_PORT_ON_SUCCESS));
    EXPECT_FALSE(SetFileCompletionNotificationModes(reinterpret_cast<HANDLE>(pair.server), 0x80));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_PARAMETER), GetLastError());
    char bytes[] = "immediate";
    WSABUF buffer{9, bytes};
    OVERLAPPED overlapped{};
    EXPECT_EQ(0, WSASend(pair.server, &buffer, 1, nullptr, 0, &overlapped, nullptr));
    EXPECT_TRUE(HasOverlappedIoCompleted(&overlapped));
    expect_none();
    // What has to wait still comes as a packet.
    OVERLAPPED receiving{};
    DWORD flags = 0;
    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &receiving, nullptr));
    send_all(pair.client, "later");
    const Packet packet = take();
    EXPECT_EQ(&receiving, packet.overlapped);
    EXPECT_EQ(5u, packet.bytes);
}

TEST_F(Port, NoPacketWhereTheEventForbidsIt) {
    Pair pair = connected_pair();
    join(pair.server, 11);
    WSAEVENT event = WSACreateEvent();
    char bytes[] = "quiet";
    WSABUF buffer{5, bytes};
    OVERLAPPED overlapped{};
    overlapped.hEvent = reinterpret_cast<HANDLE>(reinterpret_cast<UINT_PTR>(event) | 1);
    EXPECT_EQ(0, WSASend(pair.server, &buffer, 1, nullptr, 0, &overlapped, nullptr));
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE));
    expect_none();
    overlapped.hEvent = event;  // both
    EXPECT_EQ(0, WSASend(pair.server, &buffer, 1, nullptr, 0, &overlapped, nullptr));
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE));
    EXPECT_EQ(&overlapped, take(0).overlapped);
    WSACloseEvent(event);
}

TEST_F(Port, RoutineIsRefused) {
    Pair pair = connected_pair();
    join(pair.server, 1);
    char bytes[4];
    WSABUF buffer{4, bytes};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    EXPECT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, note_call));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
}

TEST_F(Port, FailureAndCancellation) {
    Pair pair = connected_pair();
    join(pair.server, 3);
    char bytes[4];
    WSABUF buffer{4, bytes};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    EXPECT_TRUE(CancelIoEx(reinterpret_cast<HANDLE>(pair.server), &overlapped));
    Packet packet = take(0);
    EXPECT_FALSE(packet.good);
    EXPECT_EQ(&overlapped, packet.overlapped);
    EXPECT_EQ(static_cast<DWORD>(ERROR_OPERATION_ABORTED), packet.error);

    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    const linger hard{1, 0};
    setsockopt(pair.client, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&hard), sizeof hard);
    pair.close_client();
    packet = take();
    EXPECT_FALSE(packet.good);
    EXPECT_EQ(&overlapped, packet.overlapped);
    EXPECT_EQ(static_cast<DWORD>(ERROR_NETNAME_DELETED), packet.error);
    DWORD count;
    EXPECT_FALSE(WSAGetOverlappedResult(pair.server, &overlapped, &count, FALSE, &flags));
    EXPECT_EQ(WSAECONNRESET, WSAGetLastError());
}

TEST_F(Port, ClosingTheSocket) {
    Pair pair = connected_pair();
    join(pair.server, 3);
    char bytes[4];
    WSABUF buffer{4, bytes};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    pair.close_server();
    const Packet packet = take(0);
    EXPECT_FALSE(packet.good);
    EXPECT_EQ(&overlapped, packet.overlapped);
    EXPECT_EQ(static_cast<DWORD>(ERROR_OPERATION_ABORTED), packet.error);
}

TEST_F(Port, ClosingThePort) {
    std::atomic<int> left{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i)
        threads.emplace_back([&] {
            const Packet packet = take();
            EXPECT_FALSE(packet.good);
            EXPECT_EQ(nullptr, packet.overlapped);
            EXPECT_TRUE(packet.error == ERROR_ABANDONED_WAIT_0 || packet.error == ERROR_INVALID_HANDLE)
                << packet.error;
            ++left;
        });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CloseHandle(port_);
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(3, left);
    port_ = nullptr;
}

/// An operation of a thread that ends stays: a port's operations belong to no thread.
TEST_F(Port, OutlivesTheThread) {
    Pair pair = connected_pair();
    join(pair.server, 3);
    char bytes[8];
    WSABUF buffer{8, bytes};
    OVERLAPPED overlapped{};
    std::thread([&] {
        DWORD flags = 0;
        ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    }).join();
    send_all(pair.client, "outlives");
    const Packet packet = take();
    EXPECT_TRUE(packet.good);
    EXPECT_EQ(8u, packet.bytes);
}

TEST_F(Port, PendingWhenTheSocketJoins) {
    Pair pair = connected_pair();
    char bytes[8];
    WSABUF buffer{8, bytes};
    OVERLAPPED before{};
    DWORD flags = 0;
    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &before, nullptr));
    join(pair.server, 3);
    send_all(pair.client, "first");
    DWORD count;
    EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &before, &count, TRUE, &flags));
    EXPECT_EQ(5u, count);
    expect_none();
}

TEST_F(Port, PollingWithoutAnyWait) {
    Pair pair = connected_pair();
    join(pair.server, 3);
    char bytes[8];
    WSABUF buffer{8, bytes};
    for (int i = 0; i < 3; ++i) {
        OVERLAPPED overlapped{};
        DWORD flags = 0;
        ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
        send_all(pair.client, "polling");
        EXPECT_TRUE(eventually([&] { return HasOverlappedIoCompleted(&overlapped); }));
        EXPECT_EQ(&overlapped, take(0).overlapped);
    }
}

/// With the value 1, one thread at a time has packets in its hands, unless that one waits.
TEST_F(Port, ConcurrencyValue) {
    HANDLE one = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1);
    std::atomic<int> inside{0};
    std::atomic<int> most{0};
    std::atomic<int> done{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (;;) {
                DWORD bytes;
                ULONG_PTR key;
                LPOVERLAPPED overlapped;
                ASSERT_TRUE(GetQueuedCompletionStatus(one, &bytes, &key, &overlapped, INFINITE));
                if (key == 0)
                    return;
                const int now = ++inside;
                int before = most;
                while (now > before && !most.compare_exchange_weak(before, now)) {
                }
                const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
                while (std::chrono::steady_clock::now() < end) {
                }
                --inside;
                ++done;
            }
        });
    for (int i = 0; i < 200; ++i)
        PostQueuedCompletionStatus(one, 0, 1, nullptr);
    EXPECT_TRUE(eventually([&] { return done == 200; }));
    EXPECT_EQ(1, most);
    for (int i = 0; i < 4; ++i)
        PostQueuedCompletionStatus(one, 0, 0, nullptr);
    for (std::thread& thread : threads)
        thread.join();
    CloseHandle(one);
}

void waits_for_another(HANDLE port, const std::function<void(std::atomic<bool>&)>& wait) {
    std::atomic<bool> second{false};
    std::atomic<int> ended{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i)
        threads.emplace_back([&] {
            for (;;) {
                DWORD bytes;
                ULONG_PTR key;
                LPOVERLAPPED overlapped;
                ASSERT_TRUE(GetQueuedCompletionStatus(port, &bytes, &key, &overlapped, INFINITE));
                if (key == 0)
                    break;
                if (key == 1)
                    wait(second);
                if (key == 2)
                    second = true;
            }
            ++ended;
        });
    PostQueuedCompletionStatus(port, 0, 1, nullptr);
    PostQueuedCompletionStatus(port, 0, 2, nullptr);
    EXPECT_TRUE(eventually([&] { return second.load(); }));
    PostQueuedCompletionStatus(port, 0, 0, nullptr);
    PostQueuedCompletionStatus(port, 0, 0, nullptr);
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(2, ended);
}

TEST_F(Port, ConcurrencyOfThreadsThatWait) {
    // In a wait of ours, and in one that we do not know of: the second packet is taken all the same.
    HANDLE one = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1);
    waits_for_another(one, [](std::atomic<bool>& second) {
        while (!second)
            Sleep(1);
    });
    waits_for_another(one, [](std::atomic<bool>& second) {
        while (!second)
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
    });
    CloseHandle(one);
}

/// Echo over many connections, with several threads: every byte comes back, in order.
TEST_F(Port, ServerWithSeveralThreads) {
    constexpr int kClients = 20;
    constexpr int kThreads = 3;
    constexpr int kRounds = 60;
    struct Connection {
        OVERLAPPED receiving{};
        OVERLAPPED sending{};
        SOCKET s = INVALID_SOCKET;
        char bytes[256];
        WSABUF buffer{};
    };
    std::vector<Connection> connections(kClients);  // outlives the sockets: operations are pending at the end
    std::vector<Pair> pairs;
    for (size_t i = 0; i < kClients; ++i) {
        pairs.push_back(connected_pair());
        connections[i].s = pairs[i].server;
        join(pairs[i].server, i + 1);
    }
    const auto receive = [](Connection& one) {
        one.buffer = {sizeof one.bytes, one.bytes};
        DWORD flags = 0;
        one.receiving = {};
        if (WSARecv(one.s, &one.buffer, 1, nullptr, &flags, &one.receiving, nullptr) != 0) {
            ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
        }
    };
    for (Connection& one : connections)
        receive(one);
    std::vector<std::thread> servers;
    for (int i = 0; i < kThreads; ++i)
        servers.emplace_back([&] {
            for (;;) {
                const Packet packet = take();
                ASSERT_TRUE(packet.good);
                if (packet.key == 0)
                    return;
                Connection& one = connections[packet.key - 1];
                if (packet.overlapped == &one.sending) {
                    receive(one);
                    continue;
                }
                one.buffer = {packet.bytes, one.bytes};
                one.sending = {};
                if (WSASend(one.s, &one.buffer, 1, nullptr, 0, &one.sending, nullptr) != 0) {
                    ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
                }
            }
        });
    std::vector<std::thread> clients;
    for (int t = 0; t < 4; ++t)
        clients.emplace_back([&, t] {
            for (int round = 0; round < kRounds; ++round)
                for (size_t i = static_cast<size_t>(t); i < kClients; i += 4) {
                    const std::string text = "request " + std::to_string(round) + " of " + std::to_string(i);
                    send_all(pairs[i].client, text);
                    ASSERT_EQ(text, receive_all(pairs[i].client, text.size()));
                }
        });
    for (std::thread& thread : clients)
        thread.join();
    for (int i = 0; i < kThreads; ++i)
        PostQueuedCompletionStatus(port_, 0, 0, nullptr);
    for (std::thread& thread : servers)
        thread.join();
    for (Pair& pair : pairs)
        EXPECT_TRUE(on_ring(pair.server));
}

/// What three threads ask of both ends of a connection, that cancel, shut down and close it meanwhile, before
/// and while it moves to the ring: each operation ends once, and nobody looks at what is gone.
TEST_F(Port, EachOperationEndsOnceWhateverHappensToItsSocket) {
    struct Operation {
        OVERLAPPED overlapped{};
        std::atomic<int> ends{0};
        char bytes[256];
    };
    constexpr int kWorkers = 3;
    std::atomic<long> begun{0};
    std::atomic<long> ended{0};
    std::vector<std::thread> workers;
    for (int i = 0; i < kWorkers; ++i)
        workers.emplace_back([&] {
            for (;;) {
                const Packet packet = take();
                if (packet.overlapped == nullptr)
                    return;
                auto* const operation = reinterpret_cast<Operation*>(packet.overlapped);
                EXPECT_EQ(0, operation->ends.fetch_add(1));
                delete operation;
                ++ended;
            }
        });
    const auto act = [&](SOCKET s, unsigned dice, unsigned more) {
        if (dice >= 8) {
            if (more % 3 == 0)
                CancelIoEx(reinterpret_cast<HANDLE>(s), nullptr);
            else if (more % 16 == 1)
                shutdown(s, SD_SEND);
            return;
        }
        auto* const operation = new Operation;
        WSABUF buffer = {1 + more % 256, operation->bytes};
        DWORD flags = 0;
        ++begun;
        const int result = dice < 4 ? WSARecv(s, &buffer, 1, nullptr, &flags, &operation->overlapped, nullptr)
                                    : WSASend(s, &buffer, 1, nullptr, 0, &operation->overlapped, nullptr);
        if (result != 0 && WSAGetLastError() != WSA_IO_PENDING) {
            --begun;
            delete operation;
        }
    };
    std::mt19937 dice(1);
    for (int round = 0; round < 800 && !HasFailure(); ++round) {
        const SOCKET listener = listening_socket();
        const SOCKET client = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
        EXPECT_EQ(0, opt_in(client));
        const sockaddr_in address = name_of(listener);
        ASSERT_EQ(0, connect(client, generic(address), sizeof address));
        const SOCKET server = accept(listener, nullptr, nullptr);
        closesocket(listener);
        if (dice() % 2 == 0)
            settle(client, server);
        join(client, 1);
        join(server, 2);
        std::vector<std::thread> users;
        for (int t = 0; t < 3; ++t)
            users.emplace_back([&, seed = dice()] {
                std::mt19937 own(seed);
                for (int i = 0; i < 60; ++i) {
                    const SOCKET s = own() % 2 == 0 ? client : server;
                    const unsigned what = own() % 10;
                    act(s, what, own() % 4096);
                }
            });
        if (dice() % 2 == 0)
            for (std::thread& user : users)
                user.join();
        closesocket(client);
        if (dice() % 2 == 0)
            std::this_thread::yield();
        closesocket(server);
        for (std::thread& user : users)
            if (user.joinable())
                user.join();
        ASSERT_TRUE(eventually([&] { return ended.load() == begun.load(); })) << round;
    }
    for (int i = 0; i < kWorkers; ++i)
        PostQueuedCompletionStatus(port_, 0, 0, nullptr);
    for (std::thread& worker : workers)
        worker.join();
}

}  // namespace
}  // namespace test
