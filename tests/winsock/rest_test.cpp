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
