// Overlapped sends and receives, with each way to learn of the completion.
#include "common.h"

#include <atomic>

namespace test {
namespace {

class Overlapped : public Winsock, public ::testing::WithParamInterface<Path> {
protected:
    void SetUp() override {
        Winsock::SetUp();
        calls().clear();
    }
};
INSTANTIATE_TEST_SUITE_P(Paths, Overlapped, ::testing::Values(Path::kRing, Path::kKernel),
                         [](const auto& one) { return one.param == Path::kRing ? "Ring" : "Kernel"; });

/// A receive into a buffer of its own.
struct Receive {
    char bytes[64] = {};
    WSABUF buffer{sizeof bytes, bytes};
    OVERLAPPED overlapped{};
    DWORD flags = 0;
    DWORD received = 0;

    int start(SOCKET s, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine = nullptr) {
        return WSARecv(s, &buffer, 1, &received, &flags, &overlapped, routine);
    }
    void must_wait(SOCKET s, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine = nullptr) {
        ASSERT_EQ(SOCKET_ERROR, start(s, routine));
        ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
        ASSERT_FALSE(HasOverlappedIoCompleted(&overlapped));
    }
    std::string text() const { return {bytes, overlapped.InternalHigh}; }
};

TEST_P(Overlapped, EventAtOnce) {
    Pair pair = connected_pair(GetParam());
    send_all(pair.client, "hello");
    Receive receive;
    WSAEVENT event = WSACreateEvent();
    receive.overlapped.hEvent = event;
    ASSERT_TRUE(eventually([&] {
        u_long count = 0;
        return ioctlsocket(pair.server, FIONREAD, &count) == 0 && count == 5;
    }));
    EXPECT_EQ(0, receive.start(pair.server));
    EXPECT_EQ(5u, receive.received);
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE));
    EXPECT_EQ("hello", receive.text());
    WSACloseEvent(event);
}

TEST_P(Overlapped, EventLater) {
    Pair pair = connected_pair(GetParam());
    Receive receive;
    WSAEVENT event = WSACreateEvent();
    receive.overlapped.hEvent = event;
    receive.must_wait(pair.server);
    EXPECT_EQ(WSA_WAIT_TIMEOUT, WSAWaitForMultipleEvents(1, &event, FALSE, 20, FALSE));
    DWORD bytes;
    DWORD flags;
    EXPECT_FALSE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, FALSE, &flags));
    EXPECT_EQ(WSA_IO_INCOMPLETE, WSAGetLastError());
    EXPECT_EQ(996, WSAGetLastError());
    std::thread sender([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        send_all(pair.client, "later");
    });
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, WSA_INFINITE, FALSE));
    EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, FALSE, &flags));
    EXPECT_EQ(5u, bytes);
    EXPECT_EQ("later", receive.text());
    sender.join();
    WSACloseEvent(event);
}

TEST_P(Overlapped, ResultWaits) {
    Pair pair = connected_pair(GetParam());
    for (int i = 0; i < 3; ++i) {
        Receive receive;
        receive.must_wait(pair.server);
        std::thread sender([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            send_all(pair.client, "result");
        });
        DWORD bytes = 0;
        DWORD flags = 0;
        EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, TRUE, &flags));
        EXPECT_EQ("result", receive.text());
        sender.join();
    }
}

TEST_P(Overlapped, ResultOfABadHandle) {
    OVERLAPPED overlapped{};
    DWORD bytes;
    DWORD flags;
    EXPECT_FALSE(WSAGetOverlappedResult(INVALID_SOCKET, &overlapped, &bytes, FALSE, &flags));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
    Pair pair = connected_pair(GetParam());
    EXPECT_FALSE(WSAGetOverlappedResult(pair.server, nullptr, &bytes, FALSE, &flags));
    EXPECT_EQ(WSA_INVALID_PARAMETER, WSAGetLastError());
    EXPECT_FALSE(WSAGetOverlappedResult(pair.server, &overlapped, nullptr, FALSE, &flags));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
}

/// No thread waits: the completion comes all the same.
TEST_P(Overlapped, Polling) {
    Pair pair = connected_pair(GetParam());
    for (int i = 0; i < 5; ++i) {
        Receive receive;
        receive.must_wait(pair.server);
        send_all(pair.client, "polled");
        ASSERT_TRUE(eventually([&] { return HasOverlappedIoCompleted(&receive.overlapped); }));
        EXPECT_EQ("polled", receive.text());
    }
}

/// InternalHigh is there when Internal is.
TEST_P(Overlapped, InternalHighBeforeInternal) {
    Pair pair = connected_pair(GetParam());
    for (int i = 0; i < 200; ++i) {
        Receive receive;
        receive.must_wait(pair.server);
        std::thread sender([&] { send_all(pair.client, "1234567"); });
        if (i % 2 == 0) {
            std::thread waiter([&] {
                DWORD bytes;
                DWORD flags;
                WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, TRUE, &flags);
            });
            while (!HasOverlappedIoCompleted(&receive.overlapped)) {
            }
            EXPECT_EQ(7u, receive.overlapped.InternalHigh);
            waiter.join();
        } else {
            DWORD bytes;
            DWORD flags;
            EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, TRUE, &flags));
            EXPECT_EQ(7u, bytes);
        }
        sender.join();
    }
}

TEST_P(Overlapped, RoutineAtOnceAndLater) {
    Pair pair = connected_pair(GetParam());
    Receive later;
    later.must_wait(pair.server, note_call);
    std::thread sender([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        send_all(pair.client, "routine");
    });
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(INFINITE, TRUE));
    sender.join();
    ASSERT_EQ(1u, calls().size());
    EXPECT_EQ(0u, calls()[0].error);
    EXPECT_EQ(7u, calls()[0].bytes);
    EXPECT_EQ(&later.overlapped, calls()[0].overlapped);
    EXPECT_EQ(std::this_thread::get_id(), calls()[0].thread);

    OVERLAPPED sent{};
    char bytes[] = "answer";
    WSABUF buffer{6, bytes};
    EXPECT_EQ(0, WSASend(pair.server, &buffer, 1, nullptr, 0, &sent, note_call));
    EXPECT_EQ(1u, calls().size());
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(0, TRUE));
    ASSERT_EQ(2u, calls().size());
    EXPECT_EQ(6u, calls()[1].bytes);
    EXPECT_EQ("answer", receive_all(pair.client, 6));
}

/// Each alertable wait runs routines, no other does.
TEST_P(Overlapped, RoutineInEachAlertableWait) {
    Pair pair = connected_pair(GetParam());
    WSAEVENT event = WSACreateEvent();
    HANDLE port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 0);
    const std::vector<std::function<DWORD()>> waits = {
        [] { return SleepEx(INFINITE, TRUE); },
        [&] { return WSAWaitForMultipleEvents(1, &event, FALSE, WSA_INFINITE, TRUE); },
        [&] { return WaitForSingleObjectEx(event, INFINITE, TRUE); },
        [&] { return WaitForMultipleObjectsEx(1, &event, TRUE, INFINITE, TRUE); },
        [&] {
            OVERLAPPED_ENTRY entry;
            ULONG removed = 9;
            EXPECT_FALSE(GetQueuedCompletionStatusEx(port, &entry, 1, &removed, INFINITE, TRUE));
            EXPECT_EQ(0u, removed);
            return GetLastError();
        },
    };
    for (size_t i = 0; i < waits.size(); ++i) {
        SCOPED_TRACE(i);
        calls().clear();
        Receive receive;
        receive.must_wait(pair.server, note_call);
        std::thread sender([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            send_all(pair.client, "alert");
        });
        EXPECT_EQ(WAIT_IO_COMPLETION, waits[i]());
        EXPECT_EQ(1u, calls().size());
        sender.join();
    }
    calls().clear();
    Receive receive;
    receive.must_wait(pair.server, note_call);
    send_all(pair.client, "alert");
    ASSERT_TRUE(eventually([&] { return HasOverlappedIoCompleted(&receive.overlapped); }));
    EXPECT_EQ(WSA_WAIT_TIMEOUT, WSAWaitForMultipleEvents(1, &event, FALSE, 1, FALSE));
    EXPECT_TRUE(calls().empty());
    EXPECT_EQ(WSA_WAIT_IO_COMPLETION, WSAWaitForMultipleEvents(1, &event, FALSE, 0, TRUE));
    EXPECT_EQ(1u, calls().size());
    CloseHandle(port);
    WSACloseEvent(event);
}

/// A routine that begins the next operation; the depth of the stack does not grow with their number.
struct Chain {
    OVERLAPPED overlapped{};  // first: the routine finds the rest by it
    SOCKET s = INVALID_SOCKET;
    char byte = 0;
    int left = 0;
    int done = 0;
};
void CALLBACK next_in_chain(DWORD error, DWORD bytes, LPWSAOVERLAPPED overlapped, DWORD) {
    auto& chain = *reinterpret_cast<Chain*>(overlapped);
    ASSERT_EQ(0u, error);
    ASSERT_EQ(1u, bytes);
    ++chain.done;
    if (--chain.left == 0)
        return;
    WSABUF buffer{1, &chain.byte};
    DWORD flags = 0;
    if (WSARecv(chain.s, &buffer, 1, nullptr, &flags, overlapped, next_in_chain) != 0) {
        ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
    }
}
TEST_P(Overlapped, RoutineBeginsTheNext) {
    Pair pair = connected_pair(GetParam());
    Chain chain;
    chain.s = pair.server;
    chain.left = 2000;
    std::thread sender([&] { send_all(pair.client, std::string(2000, 'x')); });
    WSABUF buffer{1, &chain.byte};
    DWORD flags = 0;
    WSARecv(chain.s, &buffer, 1, nullptr, &flags, &chain.overlapped, next_in_chain);
    while (chain.left > 0)
        ASSERT_EQ(WAIT_IO_COMPLETION, SleepEx(10000, TRUE));
    EXPECT_EQ(2000, chain.done);
    sender.join();
}

TEST_P(Overlapped, SeveralReceivesInOrder) {
    Pair pair = connected_pair(GetParam());
    Receive receives[5];
    for (Receive& one : receives) {
        one.buffer.len = 2;
        one.must_wait(pair.server);
    }
    send_all(pair.client, "aabbccddee");
    DWORD bytes;
    DWORD flags;
    for (int i = 4; i >= 0; --i)
        ASSERT_TRUE(WSAGetOverlappedResult(pair.server, &receives[i].overlapped, &bytes, TRUE, &flags));
    std::string all;
    for (const Receive& one : receives)
        all += one.text();
    EXPECT_EQ("aabbccddee", all);
}

TEST_P(Overlapped, SeveralSendsInOrder) {
    Pair pair = connected_pair(GetParam());
    constexpr int kCount = 64;
    constexpr size_t kSize = 256 * 1024;
    std::vector<std::string> texts;
    std::vector<OVERLAPPED> overlapped(kCount);
    int pending = 0;
    for (int i = 0; i < kCount; ++i)
        texts.emplace_back(kSize, static_cast<char>('A' + i % 26));
    for (int i = 0; i < kCount; ++i) {
        WSABUF buffer{kSize, texts[static_cast<size_t>(i)].data()};
        if (WSASend(pair.client, &buffer, 1, nullptr, 0, &overlapped[static_cast<size_t>(i)], nullptr) != 0) {
            ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
            ++pending;
        }
    }
    EXPECT_GT(pending, 0) << "16 MiB do not fit";
    std::thread reader([&] {
        for (int i = 0; i < kCount; ++i)
            ASSERT_EQ(texts[static_cast<size_t>(i)], receive_all(pair.server, kSize)) << i;
    });
    for (OVERLAPPED& one : overlapped) {
        DWORD bytes;
        DWORD flags;
        ASSERT_TRUE(WSAGetOverlappedResult(pair.client, &one, &bytes, TRUE, &flags)) << WSAGetLastError();
        EXPECT_EQ(kSize, bytes);
    }
    reader.join();
}

TEST_P(Overlapped, SendCompletesOnlyWhenTaken) {
    Pair pair = connected_pair(GetParam());
    std::string text(64 << 20, 'z');
    WSABUF buffer{static_cast<ULONG>(text.size()), text.data()};
    OVERLAPPED overlapped{};
    EXPECT_EQ(SOCKET_ERROR, WSASend(pair.client, &buffer, 1, nullptr, 0, &overlapped, nullptr));
    EXPECT_EQ(WSA_IO_PENDING, WSAGetLastError());
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_FALSE(HasOverlappedIoCompleted(&overlapped));
    std::thread reader([&] { EXPECT_EQ(text.size(), receive_all(pair.server, text.size()).size()); });
    DWORD bytes;
    DWORD flags;
    EXPECT_TRUE(WSAGetOverlappedResult(pair.client, &overlapped, &bytes, TRUE, &flags));
    EXPECT_EQ(text.size(), bytes);
    reader.join();
}

TEST_P(Overlapped, BlockingGoesBehindQueued) {
    Pair pair = connected_pair(GetParam());
    Receive first;
    first.buffer.len = 3;
    first.must_wait(pair.server);
    std::thread sender([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        send_all(pair.client, "onetwo");
    });
    EXPECT_EQ("two", receive_all(pair.server, 3));
    EXPECT_EQ("one", first.text());
    sender.join();
}

TEST_P(Overlapped, EmptyReceiveWaitsForSomething) {
    Pair pair = connected_pair(GetParam());
    Receive empty;
    empty.buffer.len = 0;
    empty.must_wait(pair.server);
    send_all(pair.client, "something");
    DWORD bytes = 9;
    DWORD flags;
    EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &empty.overlapped, &bytes, TRUE, &flags));
    EXPECT_EQ(0u, bytes);
    EXPECT_EQ("something", receive_all(pair.server, 9));
}

TEST_P(Overlapped, WaitAll) {
    Pair pair = connected_pair(GetParam());
    Receive receive;
    receive.buffer.len = 6;
    receive.flags = MSG_WAITALL;
    receive.must_wait(pair.server);
    send_all(pair.client, "abc");
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_FALSE(HasOverlappedIoCompleted(&receive.overlapped));
    send_all(pair.client, "def");
    DWORD bytes;
    DWORD flags;
    EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, TRUE, &flags));
    EXPECT_EQ("abcdef", receive.text());
}

TEST_P(Overlapped, EndOfStream) {
    Pair pair = connected_pair(GetParam());
    Receive receive;
    receive.must_wait(pair.server);
    pair.close_client();
    DWORD bytes = 9;
    DWORD flags;
    EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, TRUE, &flags));
    EXPECT_EQ(0u, bytes);
    EXPECT_EQ(0u, receive.overlapped.Internal);
}

TEST_P(Overlapped, Reset) {
    Pair pair = connected_pair(GetParam());
    Receive receive;
    receive.must_wait(pair.server);
    const linger hard{1, 0};
    ASSERT_EQ(
        0, setsockopt(pair.client, SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&hard), sizeof hard));
    pair.close_client();
    DWORD bytes = 9;
    DWORD flags;
    EXPECT_FALSE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, TRUE, &flags));
    EXPECT_EQ(WSAECONNRESET, WSAGetLastError());
    // It stays so, though Linux tells it once.
    char byte;
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(SOCKET_ERROR, recv(pair.server, &byte, 1, 0));
        EXPECT_EQ(WSAECONNRESET, WSAGetLastError());
    }
    EXPECT_EQ(SOCKET_ERROR, send(pair.server, "x", 1, 0));
    EXPECT_EQ(WSAECONNRESET, WSAGetLastError());
}

TEST_P(Overlapped, CancelIo) {
    Pair pair = connected_pair(GetParam());
    Receive mine;
    Receive others;
    mine.must_wait(pair.server);
    std::thread([&] {
        Receive port_like;
        others.must_wait(pair.server, note_call);
        // Only what the calling thread began.
        EXPECT_TRUE(CancelIo(reinterpret_cast<HANDLE>(pair.server)));
        EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(10000, TRUE));
    }).join();
    EXPECT_FALSE(HasOverlappedIoCompleted(&mine.overlapped));
    ASSERT_EQ(1u, calls().size());
    EXPECT_EQ(static_cast<DWORD>(WSA_OPERATION_ABORTED), calls()[0].error);
    EXPECT_TRUE(CancelIo(reinterpret_cast<HANDLE>(pair.server)));
    DWORD bytes;
    DWORD flags;
    EXPECT_FALSE(WSAGetOverlappedResult(pair.server, &mine.overlapped, &bytes, TRUE, &flags));
    EXPECT_EQ(WSA_OPERATION_ABORTED, WSAGetLastError());
    EXPECT_TRUE(CancelIo(reinterpret_cast<HANDLE>(pair.server))) << "nothing to cancel is no error here";
    EXPECT_FALSE(CancelIo(nullptr));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_HANDLE), GetLastError());
}

TEST_P(Overlapped, CancelIoEx) {
    Pair pair = connected_pair(GetParam());
    const auto handle = reinterpret_cast<HANDLE>(pair.server);
    Receive one;
    Receive two;
    one.must_wait(pair.server);
    two.must_wait(pair.server);
    EXPECT_TRUE(CancelIoEx(handle, &one.overlapped));
    EXPECT_TRUE(HasOverlappedIoCompleted(&one.overlapped));
    EXPECT_FALSE(HasOverlappedIoCompleted(&two.overlapped));
    EXPECT_FALSE(CancelIoEx(handle, &one.overlapped));
    EXPECT_EQ(static_cast<DWORD>(ERROR_NOT_FOUND), GetLastError());
    std::thread([&] { EXPECT_TRUE(CancelIoEx(handle, nullptr)); }).join();
    EXPECT_TRUE(HasOverlappedIoCompleted(&two.overlapped));
    EXPECT_EQ(static_cast<ULONG_PTR>(static_cast<ULONG>(STATUS_CANCELLED)), two.overlapped.Internal);
    // No byte was lost.
    send_all(pair.client, "after");
    EXPECT_EQ("after", receive_all(pair.server, 5));
}

TEST_P(Overlapped, ClosingEndsWhatIsPending) {
    Pair pair = connected_pair(GetParam());
    WSAEVENT event = WSACreateEvent();
    Receive one;
    Receive two;
    one.overlapped.hEvent = event;
    one.must_wait(pair.server);
    two.must_wait(pair.server, note_call);
    pair.close_server();
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE));
    EXPECT_EQ(static_cast<ULONG_PTR>(static_cast<ULONG>(STATUS_CANCELLED)), one.overlapped.Internal);
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(0, TRUE));
    ASSERT_EQ(1u, calls().size());
    EXPECT_EQ(static_cast<DWORD>(WSA_OPERATION_ABORTED), calls()[0].error);
    char byte;
    EXPECT_EQ(0, recv(pair.client, &byte, 1, 0)) << "the peer sees the end";
    WSACloseEvent(event);
}

TEST_P(Overlapped, EndOfTheThreadEndsWhatIsPending) {
    Pair pair = connected_pair(GetParam());
    WSAEVENT event = WSACreateEvent();
    Receive with_event;
    Receive with_routine;
    with_event.overlapped.hEvent = event;
    std::thread([&] {
        with_event.must_wait(pair.server);
        with_routine.must_wait(pair.server, note_call);
    }).join();
    EXPECT_TRUE(eventually([&] { return HasOverlappedIoCompleted(&with_routine.overlapped); }));
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 10000, FALSE));
    DWORD bytes;
    DWORD flags;
    for (Receive* const one : {&with_event, &with_routine}) {
        EXPECT_FALSE(WSAGetOverlappedResult(pair.server, &one->overlapped, &bytes, TRUE, &flags));
        EXPECT_EQ(WSA_OPERATION_ABORTED, WSAGetLastError());
    }
    EXPECT_TRUE(calls().empty()) << "the thread is gone";
    send_all(pair.client, "kept");
    EXPECT_EQ("kept", receive_all(pair.server, 4));
    WSACloseEvent(event);
}

TEST_P(Overlapped, ScatterAndGather) {
    Pair pair = connected_pair(GetParam());
    std::vector<std::string> parts;
    std::vector<WSABUF> out;
    for (int i = 0; i < 40; ++i)
        parts.emplace_back(1000, static_cast<char>('a' + i % 26));
    std::string expected;
    for (std::string& part : parts) {
        out.push_back({static_cast<ULONG>(part.size()), part.data()});
        expected += part;
    }
    std::string into(expected.size(), '\0');
    std::vector<WSABUF> in;
    for (size_t at = 0; at < into.size(); at += 1600)
        in.push_back({1600, into.data() + at});
    OVERLAPPED receiving{};
    DWORD flags = MSG_WAITALL;
    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, in.data(), static_cast<DWORD>(in.size()), nullptr, &flags,
                                    &receiving, nullptr));
    OVERLAPPED sending{};
    DWORD sent = 0;
    ASSERT_EQ(0,
              WSASend(pair.client, out.data(), static_cast<DWORD>(out.size()), &sent, 0, &sending, nullptr));
    DWORD bytes = 0;
    EXPECT_TRUE(WSAGetOverlappedResult(pair.server, &receiving, &bytes, TRUE, &flags));
    EXPECT_EQ(expected, into);
}

TEST_P(Overlapped, BadMemory) {
    Pair pair = connected_pair(GetParam());
    char bytes[8];
    WSABUF buffer{8, bytes};
    WSABUF bad_buffer{8, no_memory()};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    auto* const bad = no_memory();
    const auto fails = [](int result) {
        EXPECT_EQ(SOCKET_ERROR, result);
        EXPECT_EQ(WSAEFAULT, WSAGetLastError());
        WSASetLastError(0);
    };
    fails(WSARecv(pair.server, reinterpret_cast<WSABUF*>(bad), 1, nullptr, &flags, &overlapped, nullptr));
    fails(WSARecv(pair.server, nullptr, 1, nullptr, &flags, &overlapped, nullptr));
    fails(WSARecv(pair.server, &bad_buffer, 1, nullptr, &flags, &overlapped, nullptr));
    fails(WSARecv(pair.server, &buffer, 1, nullptr, nullptr, &overlapped, nullptr));
    fails(WSARecv(pair.server, &buffer, 1, nullptr, &flags, reinterpret_cast<OVERLAPPED*>(bad), nullptr));
    fails(WSARecv(pair.server, &buffer, 1, nullptr, &flags, nullptr, nullptr));
    fails(WSARecv(pair.server, &buffer, 1, reinterpret_cast<DWORD*>(bad), &flags, &overlapped, nullptr));
    fails(WSASend(pair.server, reinterpret_cast<WSABUF*>(bad), 1, nullptr, 0, &overlapped, nullptr));
    fails(WSASend(pair.server, &bad_buffer, 1, nullptr, 0, &overlapped, nullptr));
    fails(WSASend(pair.server, &buffer, 1, nullptr, 0, reinterpret_cast<OVERLAPPED*>(bad), nullptr));
    fails(WSASend(pair.server, &buffer, 1, nullptr, 0, nullptr, nullptr));
    fails(send(pair.server, bad, 8, 0));
    fails(recv(pair.server, bad, 8, 0));
    fails(send(pair.server, nullptr, 8, 0));
    fails(recv(pair.server, bytes, -1, 0));
    send_all(pair.client, "still fine");
    EXPECT_EQ("still fine", receive_all(pair.server, 10));
}

TEST_P(Overlapped, NotConnected) {
    const SOCKET s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    char byte = 0;
    WSABUF buffer{1, &byte};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    EXPECT_EQ(SOCKET_ERROR, WSARecv(s, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, WSASend(s, &buffer, 1, nullptr, 0, &overlapped, nullptr));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, recv(s, &byte, 1, 0));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, send(s, &byte, 1, 0));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    closesocket(s);
}

TEST_P(Overlapped, ManyThreadsWaitForTheirOwn) {
    constexpr int kThreads = 8;
    std::vector<Pair> pairs;
    for (int i = 0; i < kThreads; ++i)
        pairs.push_back(connected_pair(GetParam()));
    std::vector<std::thread> threads;
    for (Pair& pair : pairs)
        threads.emplace_back([&pair] {
            WSAEVENT event = WSACreateEvent();
            for (int round = 0; round < 50; ++round) {
                Receive receive;
                receive.overlapped.hEvent = event;
                if (receive.start(pair.server) != 0) {
                    ASSERT_EQ(WSA_IO_PENDING, WSAGetLastError());
                }
                if (round % 2 == 0) {
                    ASSERT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 20000, FALSE));
                }
                DWORD bytes;
                DWORD flags;
                ASSERT_TRUE(WSAGetOverlappedResult(pair.server, &receive.overlapped, &bytes, TRUE, &flags));
                send_all(pair.server, receive.text());
            }
            WSACloseEvent(event);
        });
    for (Pair& pair : pairs)
        threads.emplace_back([&pair] {
            for (int round = 0; round < 50; ++round) {
                send_all(pair.client, "ping");
                ASSERT_EQ("ping", receive_all(pair.client, 4));
            }
        });
    for (std::thread& thread : threads)
        thread.join();
}

}  // namespace
}  // namespace test
