// What is small and used beside the rest: byte order by socket, text forms, clocks, locks, the last few
// names.
#include "common.h"

#include <atomic>

namespace test {
namespace {

class Rest : public Winsock {};

TEST_F(Rest, ByteOrder) {
    const SOCKET s = WSASocketA(AF_INET, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, WSA_FLAG_OVERLAPPED);
    u_long four = 0;
    u_short two = 0;
    EXPECT_EQ(0, WSAHtonl(s, 0x01020304, &four));
    EXPECT_EQ(0x04030201u, four);
    EXPECT_EQ(0, WSANtohl(s, four, &four));
    EXPECT_EQ(0x01020304u, four);
    EXPECT_EQ(0, WSAHtons(s, 0x0102, &two));
    EXPECT_EQ(0x0201u, two);
    EXPECT_EQ(0, WSANtohs(s, two, &two));
    EXPECT_EQ(0x0102u, two);
    EXPECT_EQ(0x01020304u, ntohl(htonl(0x01020304)));
    EXPECT_EQ(SOCKET_ERROR, WSAHtonl(s, 1, nullptr));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_EQ(SOCKET_ERROR, WSAHtonl(INVALID_SOCKET, 1, &four));
    EXPECT_EQ(WSAENOTSOCK, WSAGetLastError());
    closesocket(s);
}

TEST_F(Rest, SendAndReceiveDisconnect) {
    Pair pair = connected_pair();
    WSABUF data{1, no_memory()};
    EXPECT_EQ(SOCKET_ERROR, WSASendDisconnect(pair.client, &data));
    EXPECT_EQ(WSAEOPNOTSUPP, WSAGetLastError()) << "TCP has no disconnect data";
    EXPECT_EQ(0, WSASendDisconnect(pair.client, nullptr));
    char byte;
    EXPECT_EQ(0, recv(pair.server, &byte, 1, 0));
    EXPECT_EQ(0, WSARecvDisconnect(pair.server, nullptr));
    EXPECT_EQ(SOCKET_ERROR, recv(pair.server, &byte, 1, 0));
    EXPECT_EQ(WSAESHUTDOWN, WSAGetLastError());
}

TEST_F(Rest, SendTo) {
    const SOCKET one = socket(AF_INET, SOCK_DGRAM, 0);
    const sockaddr_in any = loopback();
    ASSERT_EQ(0, bind(one, generic(any), sizeof any));
    const sockaddr_in to = name_of(one);
    const SOCKET other = socket(AF_INET, SOCK_DGRAM, 0);
    char bytes[] = "datagram";
    WSABUF buffer{8, bytes};
    DWORD sent = 0;
    EXPECT_EQ(0, WSASendTo(other, &buffer, 1, &sent, 0, generic(to), sizeof to, nullptr, nullptr));
    EXPECT_EQ(8u, sent);
    EXPECT_EQ("datagram", receive_all(one, 8));
    EXPECT_EQ(SOCKET_ERROR, WSASend(other, &buffer, 1, &sent, 0, nullptr, nullptr));
    EXPECT_EQ(WSAENOTCONN, WSAGetLastError());
    // On a connected stream the address is ignored.
    Pair pair = connected_pair();
    EXPECT_EQ(8, sendto(pair.client, bytes, 8, 0, generic(to), sizeof to));
    EXPECT_EQ("datagram", receive_all(pair.server, 8));
    closesocket(one);
    closesocket(other);
}

TEST_F(Rest, TextForms) {
    char text[INET6_ADDRSTRLEN];
    in6_addr six{};
    EXPECT_EQ(1, InetPtonW(AF_INET6, u"fe80::1", &six));
    EXPECT_STREQ("fe80::1", inet_ntop(AF_INET6, &six, text, sizeof text));
    EXPECT_EQ(nullptr, inet_ntop(AF_INET6, &six, text, 3));
    EXPECT_EQ(WSAEINVAL, WSAGetLastError());
    WCHAR wide[64];
    ASSERT_NE(nullptr, InetNtopW(AF_INET6, &six, wide, 64));
    EXPECT_EQ(u'f', wide[0]);
    sockaddr_in four = loopback(99);
    DWORD size = 64;
    EXPECT_EQ(0, WSAAddressToStringW(reinterpret_cast<sockaddr*>(&four), sizeof four, nullptr, wide, &size));
    EXPECT_EQ(13u, size);
    sockaddr_in parsed{};
    int length = sizeof parsed;
    EXPECT_EQ(0, WSAStringToAddressW(wide, AF_INET, nullptr, reinterpret_cast<sockaddr*>(&parsed), &length));
    EXPECT_EQ(four.sin_port, parsed.sin_port);
    size = 3;
    EXPECT_EQ(SOCKET_ERROR,
              WSAAddressToStringW(reinterpret_cast<sockaddr*>(&four), sizeof four, nullptr, wide, &size));
    EXPECT_EQ(WSAEFAULT, WSAGetLastError());
    EXPECT_NE(nullptr, strstr(gai_strerrorA(WSAHOST_NOT_FOUND), "11001"));
}

TEST_F(Rest, ResultByHandle) {
    Pair pair = connected_pair();
    char bytes[8];
    WSABUF buffer{8, bytes};
    OVERLAPPED overlapped{};
    DWORD flags = 0;
    ASSERT_EQ(SOCKET_ERROR, WSARecv(pair.server, &buffer, 1, nullptr, &flags, &overlapped, nullptr));
    DWORD count = 0;
    const auto handle = reinterpret_cast<HANDLE>(pair.server);
    EXPECT_FALSE(GetOverlappedResult(handle, &overlapped, &count, FALSE));
    EXPECT_EQ(static_cast<DWORD>(ERROR_IO_INCOMPLETE), GetLastError());
    send_all(pair.client, "handle");
    EXPECT_TRUE(GetOverlappedResult(handle, &overlapped, &count, TRUE));
    EXPECT_EQ(6u, count);
    // Of what is over the handle is not looked at, as on Windows; it is what a wait begins with.
    EXPECT_TRUE(GetOverlappedResult(INVALID_HANDLE_VALUE, &overlapped, &count, FALSE));
    overlapped.Internal = static_cast<ULONG_PTR>(STATUS_PENDING);
    EXPECT_FALSE(GetOverlappedResult(INVALID_HANDLE_VALUE, &overlapped, &count, FALSE));
    EXPECT_EQ(static_cast<DWORD>(ERROR_INVALID_HANDLE), GetLastError());
}

TEST_F(Rest, Semaphores) {
    EXPECT_EQ(nullptr, CreateSemaphoreA(nullptr, 3, 2, nullptr));
    HANDLE semaphore = CreateSemaphoreA(nullptr, 1, 3, nullptr);
    ASSERT_NE(nullptr, semaphore);
    EXPECT_EQ(DWORD{WAIT_OBJECT_0}, WaitForSingleObject(semaphore, 0));
    EXPECT_EQ(DWORD{WAIT_TIMEOUT}, WaitForSingleObject(semaphore, 0));
    LONG before = -1;
    EXPECT_TRUE(ReleaseSemaphore(semaphore, 2, &before));
    EXPECT_EQ(0, before);
    EXPECT_FALSE(ReleaseSemaphore(semaphore, 2, nullptr));
    EXPECT_EQ(DWORD{ERROR_TOO_MANY_POSTS}, GetLastError());
    EXPECT_EQ(DWORD{WAIT_OBJECT_0}, WaitForSingleObject(semaphore, 0));
    EXPECT_EQ(DWORD{WAIT_OBJECT_0}, WaitForSingleObject(semaphore, 0));
    EXPECT_EQ(DWORD{WAIT_TIMEOUT}, WaitForSingleObject(semaphore, 0));
    std::atomic<int> taken{0};
    std::vector<std::thread> takers;
    for (int i = 0; i < 4; ++i)
        takers.emplace_back([&] {
            for (int j = 0; j < 50; ++j) {
                EXPECT_EQ(DWORD{WAIT_OBJECT_0}, WaitForSingleObject(semaphore, INFINITE));
                ++taken;
            }
        });
    for (int i = 0; i < 200; ++i)
        while (!ReleaseSemaphore(semaphore, 1, nullptr))
            Sleep(0);
    for (std::thread& taker : takers)
        taker.join();
    EXPECT_EQ(200, taken);
    HANDLE event = CreateEventA(nullptr, TRUE, FALSE, nullptr);
    EXPECT_FALSE(ReleaseSemaphore(event, 1, nullptr));
    EXPECT_EQ(DWORD{ERROR_INVALID_HANDLE}, GetLastError());
    CloseHandle(event);
    CloseHandle(semaphore);
}

TEST_F(Rest, SlimLocksAndConditions) {
    SRWLOCK lock = SRWLOCK_INIT;
    AcquireSRWLockShared(&lock);
    EXPECT_TRUE(TryAcquireSRWLockShared(&lock));
    EXPECT_FALSE(TryAcquireSRWLockExclusive(&lock));
    ReleaseSRWLockShared(&lock);
    ReleaseSRWLockShared(&lock);
    EXPECT_TRUE(TryAcquireSRWLockExclusive(&lock));
    EXPECT_FALSE(TryAcquireSRWLockShared(&lock));
    ReleaseSRWLockExclusive(&lock);

    // A queue of one place, with each kind of lock.
    CONDITION_VARIABLE changed;
    CRITICAL_SECTION section;
    InitializeSRWLock(&lock);
    InitializeConditionVariable(&changed);
    InitializeCriticalSection(&section);
    for (const bool slim : {true, false}) {
        int place = 0;
        long sum = 0;
        const auto locked = [&](auto ready, auto act) {
            slim ? AcquireSRWLockExclusive(&lock) : EnterCriticalSection(&section);
            while (!ready())
                EXPECT_TRUE(slim ? SleepConditionVariableSRW(&changed, &lock, INFINITE, 0)
                                 : SleepConditionVariableCS(&changed, &section, INFINITE));
            act();
            slim ? ReleaseSRWLockExclusive(&lock) : LeaveCriticalSection(&section);
            WakeAllConditionVariable(&changed);
        };
        std::vector<std::thread> threads;
        for (int i = 0; i < 2; ++i) {
            threads.emplace_back([&] {
                for (int n = 1; n <= 1000; ++n)
                    locked([&] { return place == 0; }, [&] { place = n; });
            });
            threads.emplace_back([&] {
                for (int n = 0; n < 1000; ++n)
                    locked([&] { return place != 0; }, [&] { sum += std::exchange(place, 0); });
            });
        }
        for (std::thread& thread : threads)
            thread.join();
        EXPECT_EQ(2 * 500500, sum);
    }
    EnterCriticalSection(&section);
    EXPECT_FALSE(SleepConditionVariableCS(&changed, &section, 5));
    EXPECT_EQ(DWORD{ERROR_TIMEOUT}, GetLastError());
    WakeConditionVariable(&changed);  // nobody sleeps
    LeaveCriticalSection(&section);
    DeleteCriticalSection(&section);
}

TEST_F(Rest, SlotsOfThreads) {
    const DWORD slot = TlsAlloc();
    ASSERT_NE(TLS_OUT_OF_INDEXES, slot);
    int mine = 0;
    EXPECT_TRUE(TlsSetValue(slot, &mine));
    std::thread([&] { EXPECT_EQ(nullptr, TlsGetValue(slot)); }).join();
    SetLastError(5);
    EXPECT_EQ(&mine, TlsGetValue(slot));
    EXPECT_EQ(0U, GetLastError());
    EXPECT_TRUE(TlsFree(slot));
    EXPECT_FALSE(TlsSetValue(slot, &mine));
}

TEST_F(Rest, ProviderHelpers) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(SOCKET{8}, &set);
    FD_SET(SOCKET{12}, &set);
    FD_CLR(SOCKET{8}, &set);
    EXPECT_EQ(0, WPUFDIsSet(8, &set));
    EXPECT_EQ(1, WPUFDIsSet(12, &set));
    EXPECT_EQ(1, __WSAFDIsSet(12, &set));
    LPBLOCKINGCALLBACK callback = nullptr;
    DWORD_PTR context = 0;
    int error = 0;
    EXPECT_EQ(0, WPUQueryBlockingCallback(0, &callback, &context, &error));
    EXPECT_EQ(nullptr, callback) << "this thread has no hook";
    EXPECT_EQ(SOCKET_ERROR, WPUQueryBlockingCallback(0, nullptr, &context, &error));
    EXPECT_EQ(WSAEFAULT, error);
}

DWORD WINAPI exits(LPVOID) { ExitThread(9); }

TEST_F(Rest, ClocksLocksThreads) {
    LARGE_INTEGER before{};
    LARGE_INTEGER after{};
    LARGE_INTEGER frequency{};
    EXPECT_TRUE(QueryPerformanceFrequency(&frequency));
    const DWORD ticks = GetTickCount();
    EXPECT_TRUE(QueryPerformanceCounter(&before));
    Sleep(5);
    EXPECT_TRUE(QueryPerformanceCounter(&after));
    EXPECT_GE((after.QuadPart - before.QuadPart) * 1000 / frequency.QuadPart, 4);
    EXPECT_GE(GetTickCount() - ticks, 4u);
    EXPECT_EQ(static_cast<DWORD>(getpid()), GetCurrentProcessId());
    EXPECT_NE(0u, GetCurrentThreadId());
    HANDLE thread = CreateThread(nullptr, 0, exits, nullptr, 0, nullptr);
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObject(thread, 10000));
    DWORD code = 0;
    EXPECT_TRUE(GetExitCodeThread(thread, &code));
    EXPECT_EQ(9u, code);
    CloseHandle(thread);
    CRITICAL_SECTION section;
    InitializeCriticalSection(&section);
    EnterCriticalSection(&section);
    EXPECT_TRUE(TryEnterCriticalSection(&section)) << "its owner may";
    std::thread([&] { EXPECT_FALSE(TryEnterCriticalSection(&section)); }).join();
    LeaveCriticalSection(&section);
    LeaveCriticalSection(&section);
    DeleteCriticalSection(&section);
    EXPECT_TRUE(InitializeCriticalSectionAndSpinCount(&section, 100));
    DeleteCriticalSection(&section);
    LONG count = 5;
    EXPECT_EQ(6, InterlockedIncrement(&count));
    EXPECT_EQ(5, InterlockedDecrement(&count));
    EXPECT_EQ(5, InterlockedExchange(&count, 7));
    EXPECT_EQ(7, InterlockedCompareExchange(&count, 8, 7));
    EXPECT_EQ(8, InterlockedExchangeAdd(&count, 2));
    HANDLE event = CreateEventA(nullptr, TRUE, TRUE, nullptr);
    EXPECT_TRUE(ResetEvent(event));
    EXPECT_EQ(static_cast<DWORD>(WAIT_TIMEOUT), WaitForSingleObject(event, 0));
    CloseHandle(event);
}

}  // namespace
}  // namespace test
