// Both sets of headers against the same facts.
#define _WIN32_WINNT 0x0A00
// MinGW's headers depend on this order.
// clang-format off
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <mstcpip.h>
#include <ws2spi.h>
#include <windows.h>
#include <stddef.h>
// clang-format on

#define SIZE(type, size) static_assert(sizeof(type) == size, #type);
#define OFFSET(type, member, offset) static_assert(offsetof(type, member) == offset, #type "::" #member);
#define FACT(name, value) static_assert((unsigned)(name) == (unsigned)(value), #name);
#include "facts.inc"

// A function's type, as far as both can say it: that a call with these arguments compiles.
template <typename Function> void same(Function*) {}
void signatures() {
    same<SOCKET WSAAPI(int, int, int)>(socket);
    same<int WSAAPI(SOCKET, const sockaddr*, int)>(connect);
    same<int WSAAPI(SOCKET, const char*, int, int)>(send);
    same<int WSAAPI(SOCKET, DWORD, LPVOID, DWORD, LPVOID, DWORD, LPDWORD, LPWSAOVERLAPPED,
                    LPWSAOVERLAPPED_COMPLETION_ROUTINE)>(WSAIoctl);
    same<int WSAAPI(SOCKET, LPWSABUF, DWORD, LPDWORD, LPDWORD, LPWSAOVERLAPPED,
                    LPWSAOVERLAPPED_COMPLETION_ROUTINE)>(WSARecv);
    same<int WSAAPI(SOCKET, LPWSABUF, DWORD, LPDWORD, DWORD, LPWSAOVERLAPPED,
                    LPWSAOVERLAPPED_COMPLETION_ROUTINE)>(WSASend);
    same<SOCKET WSAAPI(SOCKET, sockaddr*, LPINT, LPCONDITIONPROC, DWORD_PTR)>(WSAAccept);
    same<BOOL WSAAPI(SOCKET, LPWSAOVERLAPPED, LPDWORD, BOOL, LPDWORD)>(WSAGetOverlappedResult);
    same<HANDLE WINAPI(HANDLE, HANDLE, ULONG_PTR, DWORD)>(CreateIoCompletionPort);
    same<BOOL WINAPI(HANDLE, LPDWORD, PULONG_PTR, LPOVERLAPPED*, DWORD)>(GetQueuedCompletionStatus);
    same<BOOL WINAPI(HANDLE, LPOVERLAPPED_ENTRY, ULONG, PULONG, DWORD, BOOL)>(GetQueuedCompletionStatusEx);
    same<int WSPAPI(WORD, LPWSPDATA, LPWSAPROTOCOL_INFOW, WSPUPCALLTABLE, LPWSPPROC_TABLE)>(WSPStartup);
    same<int WSPAPI(LPWSATHREADID, LPWSAUSERAPC, DWORD_PTR, LPINT)>(WPUQueueApc);
    same<servent * WSAAPI(const char*, const char*)>(getservbyname);
    same<servent * WSAAPI(int, const char*)>(getservbyport);
    same<protoent * WSAAPI(int)>(getprotobynumber);
    same<hostent * WSAAPI(const char*, int, int)>(gethostbyaddr);
    same<int WSAAPI(LPINT, LPWSAPROTOCOL_INFOW, LPDWORD)>(WSAEnumProtocolsW);
    LPFN_ACCEPTEX accept_ex = AcceptEx;
    (void)accept_ex;
    const GUID ids[] = {WSAID_ACCEPTEX, WSAID_CONNECTEX, WSAID_DISCONNECTEX, WSAID_GETACCEPTEXSOCKADDRS};
    (void)ids;
}
int main() { return 0; }
