// The service provider interface: WSPStartup's table, WSPIoctl with each row, the upcalls.
#include "common.h"

namespace test {
namespace {

struct Queued {
    WSATHREADID thread;
    LPWSAUSERAPC function;
    DWORD_PTR context;
};
std::vector<Queued> queued;
int WSPAPI note_queue(LPWSATHREADID thread, LPWSAUSERAPC function, DWORD_PTR context, LPINT error) {
    queued.push_back({*thread, function, context});
    return WPUQueueApc(thread, function, context, error);
}
int blocking_calls = 0;
BOOL CALLBACK give_up(DWORD_PTR context) {
    EXPECT_EQ(77u, context);
    int error = 0;
    EXPECT_EQ(SOCKET_ERROR, opt_in(4));
    error = WSAGetLastError();
    EXPECT_EQ(WSAEINPROGRESS, error) << "no calls inside the callback";
    return ++blocking_calls < 3;
}
int WSPAPI blocking_callback(DWORD, LPBLOCKINGCALLBACK* callback, PDWORD_PTR context, LPINT) {
    *callback = give_up;
    *context = 77;
    return 0;
}

class Provider : public Winsock {
protected:
    void SetUp() override {
        Winsock::SetUp();
        calls().clear();
        queued.clear();
        WSPUPCALLTABLE upcalls{};
        upcalls.lpWPUQueueApc = note_queue;
        WSPDATA data{};
        ASSERT_EQ(0, WSPStartup(MAKEWORD(2, 2), &data, nullptr, upcalls, &table_));
        EXPECT_EQ(MAKEWORD(2, 2), data.wVersion);
        int error = 0;
        ASSERT_EQ(0, WPUOpenCurrentThread(&thread_, &error));
        s_ = table_.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, WSA_FLAG_OVERLAPPED, &error);
        ASSERT_NE(INVALID_SOCKET, s_);
        WSASetLastError(4711);
    }
    void TearDown() override {
        int error = 0;
        EXPECT_EQ(0, table_.lpWSPCloseSocket(s_, &error));
        EXPECT_EQ(0, WPUCloseThread(&thread_, &error));
        EXPECT_EQ(0, table_.lpWSPCleanup(&error));
        Winsock::TearDown();
    }
    int ioctl(void* in, DWORD size, DWORD* returned, OVERLAPPED* overlapped = nullptr,
              LPWSAOVERLAPPED_COMPLETION_ROUTINE routine = nullptr, WSATHREADID* thread = nullptr,
              DWORD code = SIO_LOOPBACK_FAST_PATH, DWORD out_size = 0) {
        error_ = 99;
        const int result = table_.lpWSPIoctl(s_, code, in, size, nullptr, out_size, returned, overlapped,
                                             routine, thread, &error_);
        EXPECT_EQ(4711, WSAGetLastError()) << "the thread's last error is not touched";
        return result;
    }
    WSPPROC_TABLE table_{};
    WSATHREADID thread_{};
    SOCKET s_ = INVALID_SOCKET;
    int error_ = 0;
    DWORD on_ = 1;
    DWORD returned_ = 99;
};

TEST_F(Provider, EveryEntryIsThere) {
    const auto* const entries = reinterpret_cast<void**>(&table_);
    for (size_t i = 0; i < sizeof table_ / sizeof(void*); ++i)
        EXPECT_NE(nullptr, entries[i]) << i;
}

TEST_F(Provider, IoctlSynchronousRows) {
    EXPECT_EQ(0, ioctl(&on_, 4, &returned_));
    EXPECT_EQ(0, error_);
    EXPECT_EQ(0u, returned_);
    EXPECT_EQ(SOCKET_ERROR, ioctl(&on_, 4, nullptr));
    EXPECT_EQ(WSAEFAULT, error_);
    EXPECT_EQ(SOCKET_ERROR, ioctl(nullptr, 4, &returned_));
    EXPECT_EQ(WSAEFAULT, error_);
    EXPECT_EQ(SOCKET_ERROR, ioctl(&on_, 3, &returned_));
    EXPECT_EQ(WSAEFAULT, error_);
    EXPECT_EQ(SOCKET_ERROR, ioctl(&on_, 4, &returned_, nullptr, nullptr, nullptr, SIO_LOOPBACK_FAST_PATH, 4));
    EXPECT_EQ(WSAEINVAL, error_);
    EXPECT_EQ(SOCKET_ERROR, ioctl(&on_, 4, &returned_, nullptr, nullptr, nullptr, _WSAIOW(IOC_VENDOR, 9999)));
    EXPECT_EQ(WSAEOPNOTSUPP, error_);
    EXPECT_EQ(SOCKET_ERROR, ioctl(no_memory(), 4, &returned_));
    EXPECT_EQ(WSAEFAULT, error_);
    EXPECT_EQ(SOCKET_ERROR, table_.lpWSPIoctl(INVALID_SOCKET, SIO_LOOPBACK_FAST_PATH, &on_, 4, nullptr, 0,
                                              &returned_, nullptr, nullptr, nullptr, &error_));
    EXPECT_EQ(WSAENOTSOCK, error_);
}

TEST_F(Provider, IoctlQueuesTheRoutineBeforeItReturns) {
    OVERLAPPED overlapped{};
    {
        WSATHREADID copy = thread_;
        EXPECT_EQ(0, ioctl(&on_, 4, &returned_, &overlapped, note_call, &copy));
        copy = {};  // copied, not kept
    }
    ASSERT_EQ(1u, queued.size()) << "through the upcall, by the return";
    EXPECT_EQ(thread_.ThreadHandle, queued[0].thread.ThreadHandle);
    EXPECT_TRUE(calls().empty());
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(0, TRUE));
    ASSERT_EQ(1u, calls().size());
    EXPECT_EQ(0u, calls()[0].error);
    EXPECT_EQ(0u, calls()[0].bytes);
    EXPECT_EQ(&overlapped, calls()[0].overlapped);
    EXPECT_EQ(0u, calls()[0].flags);
    OVERLAPPED unknown{};
    EXPECT_EQ(SOCKET_ERROR,
              ioctl(&on_, 4, &returned_, &unknown, note_call, &thread_, _WSAIOW(IOC_VENDOR, 9999)));
    EXPECT_EQ(WSA_IO_PENDING, error_);
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(0, TRUE));
    ASSERT_EQ(2u, calls().size());
    EXPECT_EQ(static_cast<DWORD>(WSAEOPNOTSUPP), calls()[1].error);
    EXPECT_EQ(SOCKET_ERROR, ioctl(&on_, 4, &returned_, &overlapped, note_call,
                                  reinterpret_cast<WSATHREADID*>(no_memory())));
    EXPECT_EQ(WSAEFAULT, error_);
}

TEST_F(Provider, IoctlEventAndPort) {
    WSAEVENT event = WSACreateEvent();
    OVERLAPPED overlapped{};
    overlapped.hEvent = event;
    EXPECT_EQ(0, ioctl(&on_, 4, &returned_, &overlapped));
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE));
    WSACloseEvent(event);
    overlapped = {};
    HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(s_), nullptr, 5, 0);
    EXPECT_EQ(0, ioctl(&on_, 4, &returned_, &overlapped));
    DWORD bytes;
    ULONG_PTR key;
    LPOVERLAPPED got;
    EXPECT_TRUE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 0));
    EXPECT_EQ(&overlapped, got);
    CloseHandle(port);
}

TEST_F(Provider, AConnectionThroughTheTable) {
    int error = 0;
    const SOCKET listener = listening_socket();
    WSASetLastError(4711);
    EXPECT_EQ(0, ioctl(&on_, 4, &returned_));
    const sockaddr_in address = name_of(listener);
    ASSERT_EQ(0, table_.lpWSPConnect(s_, generic(address), sizeof address, nullptr, nullptr, nullptr, nullptr,
                                     &error));
    const SOCKET server = table_.lpWSPAccept(listener, nullptr, nullptr, nullptr, 0, &error);
    ASSERT_NE(INVALID_SOCKET, server);
    settle(s_, server);
    EXPECT_TRUE(on_ring(server));
    // A receive whose routine goes to the thread that was named, from another thread.
    char bytes[16];
    WSABUF buffer{16, bytes};
    DWORD flags = 0;
    OVERLAPPED overlapped{};
    std::thread([&] {
        int inner = 0;
        EXPECT_EQ(SOCKET_ERROR, table_.lpWSPRecv(server, &buffer, 1, nullptr, &flags, &overlapped, note_call,
                                                 &thread_, &inner));
        EXPECT_EQ(WSA_IO_PENDING, inner);
        send_all(s_, "for the other");
        // Ends with its operations: those of a port or of another thread's routine too.
        EXPECT_TRUE(eventually([&] { return HasOverlappedIoCompleted(&overlapped); }));
    }).join();
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(10000, TRUE));
    ASSERT_EQ(1u, calls().size());
    EXPECT_EQ(13u, calls()[0].bytes);
    EXPECT_EQ(SOCKET_ERROR, table_.lpWSPBind(server, generic(address), sizeof address, &error));
    EXPECT_EQ(WSAEINVAL, error);
    EXPECT_EQ(SOCKET_ERROR, table_.lpWSPDuplicateSocket(server, 1, nullptr, &error));
    EXPECT_EQ(WSAEOPNOTSUPP, error);
    closesocket(server);
    closesocket(listener);
}

TEST_F(Provider, BlockingCallback) {
    Pair pair = connected_pair();
    WSPUPCALLTABLE upcalls{};
    upcalls.lpWPUQueryBlockingCallback = blocking_callback;
    WSPDATA data{};
    WSPPROC_TABLE table{};
    ASSERT_EQ(0, WSPStartup(MAKEWORD(2, 2), &data, nullptr, upcalls, &table));
    char byte;
    WSABUF buffer{1, &byte};
    DWORD count;
    DWORD flags = 0;
    int error = 0;
    blocking_calls = 0;
    EXPECT_EQ(SOCKET_ERROR,
              table.lpWSPRecv(pair.server, &buffer, 1, &count, &flags, nullptr, nullptr, nullptr, &error));
    EXPECT_EQ(WSAEINTR, error);
    EXPECT_EQ(3, blocking_calls);
    EXPECT_EQ(0, table.lpWSPCleanup(&error));
}

void CALLBACK count_up(DWORD_PTR context) { ++*reinterpret_cast<int*>(context); }

TEST_F(Provider, Upcalls) {
    int error = 99;
    int count = 0;
    EXPECT_EQ(0, WPUQueueApc(&thread_, count_up, reinterpret_cast<DWORD_PTR>(&count), &error));
    EXPECT_EQ(0, count);
    EXPECT_EQ(WAIT_IO_COMPLETION, SleepEx(0, TRUE));
    EXPECT_EQ(1, count);
    EXPECT_EQ(SOCKET_ERROR, WPUOpenCurrentThread(nullptr, &error));
    EXPECT_EQ(WSAEFAULT, error);
    WSATHREADID gone{};
    std::thread([&] { WPUOpenCurrentThread(&gone, &error); }).join();
    EXPECT_EQ(SOCKET_ERROR, WPUQueueApc(&gone, count_up, 0, &error));
    EXPECT_EQ(WSAEINVAL, error);

    OVERLAPPED overlapped{};
    EXPECT_EQ(SOCKET_ERROR, WPUCompleteOverlappedRequest(s_, nullptr, 0, 0, &error));
    EXPECT_EQ(WSAEINVAL, error);
    EXPECT_EQ(SOCKET_ERROR, WPUCompleteOverlappedRequest(INVALID_SOCKET, &overlapped, 0, 0, &error));
    EXPECT_EQ(WSAENOTSOCK, error);
    WSAEVENT event = WPUCreateEvent(&error);
    overlapped.hEvent = event;
    EXPECT_EQ(0, WPUCompleteOverlappedRequest(s_, &overlapped, WSAECONNRESET, 5, &error));
    EXPECT_EQ(WSA_WAIT_EVENT_0, WSAWaitForMultipleEvents(1, &event, FALSE, 0, FALSE));
    EXPECT_EQ(5u, overlapped.InternalHigh);
    DWORD bytes;
    DWORD flags;
    EXPECT_FALSE(table_.lpWSPGetOverlappedResult(s_, &overlapped, &bytes, FALSE, &flags, &error));
    EXPECT_EQ(WSAECONNRESET, error);
    EXPECT_TRUE(WPUResetEvent(event, &error));
    EXPECT_TRUE(WPUSetEvent(event, &error));
    EXPECT_TRUE(WPUCloseEvent(event, &error));
    EXPECT_FALSE(WPUCloseEvent(event, &error));
    EXPECT_EQ(static_cast<int>(WSA_INVALID_HANDLE), error);
    HANDLE port = CreateIoCompletionPort(reinterpret_cast<HANDLE>(s_), nullptr, 5, 0);
    overlapped.hEvent = nullptr;
    EXPECT_EQ(0, WPUCompleteOverlappedRequest(s_, &overlapped, 0, 6, &error));
    ULONG_PTR key;
    LPOVERLAPPED got;
    EXPECT_TRUE(GetQueuedCompletionStatus(port, &bytes, &key, &got, 0));
    EXPECT_EQ(6u, bytes);
    CloseHandle(port);
}

TEST_F(Provider, StartupErrors) {
    WSPDATA data;
    WSPPROC_TABLE table;
    EXPECT_EQ(WSAVERNOTSUPPORTED, WSPStartup(MAKEWORD(1, 1), &data, nullptr, WSPUPCALLTABLE{}, &table));
    EXPECT_EQ(WSAEFAULT, WSPStartup(MAKEWORD(2, 2), nullptr, nullptr, WSPUPCALLTABLE{}, &table));
    EXPECT_EQ(WSAEFAULT, WSPStartup(MAKEWORD(2, 2), &data, nullptr, WSPUPCALLTABLE{}, nullptr));
}

}  // namespace
}  // namespace test
