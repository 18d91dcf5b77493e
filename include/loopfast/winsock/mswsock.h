/* mswsock.h: the extension functions, and the options that go with them.
 *
 * AcceptEx, ConnectEx and DisconnectEx are asked for with WSAIoctl(SIO_GET_EXTENSION_FUNCTION_POINTER) and a
 * WSAID; AcceptEx and GetAcceptExSockaddrs can be called by name too. They return TRUE when done at once,
 * FALSE with WSA_IO_PENDING (ERROR_IO_PENDING) when under way. */
#ifndef LOOPFAST_WINSOCK_MSWSOCK_H
#define LOOPFAST_WINSOCK_MSWSOCK_H

#include "winsock2.h"

LOOPFAST_WINSOCK_BEGIN

#ifndef SIO_LOOPBACK_FAST_PATH
#define SIO_LOOPBACK_FAST_PATH _WSAIOW(IOC_VENDOR, 16)
#endif
#define SIO_UDP_CONNRESET _WSAIOW(IOC_VENDOR, 12)
#define SIO_BSP_HANDLE _WSAIOR(IOC_WS2, 27)
#define SIO_BASE_HANDLE _WSAIOR(IOC_WS2, 34)

#define SO_OPENTYPE 0x7008
#define SO_SYNCHRONOUS_ALERT 0x10
#define SO_SYNCHRONOUS_NONALERT 0x20
#define SO_UPDATE_ACCEPT_CONTEXT 0x700B  /**< set: the SOCKET of the listener */
#define SO_CONNECT_TIME 0x700C           /**< get: seconds since the connection, 0xffffffff: none */
#define SO_UPDATE_CONNECT_CONTEXT 0x7010 /**< set: nothing */
#define TCP_BSDURGENT 0x7000

#define TF_DISCONNECT 0x01
#define TF_REUSE_SOCKET 0x02
#define TF_WRITE_BEHIND 0x04
#define DE_REUSE_SOCKET TF_REUSE_SOCKET

/** Accepts into a socket that is neither bound nor connected, and receives the first bytes with it.
 *  @param lpOutputBuffer room for dwReceiveDataLength bytes of data and then the two addresses.
 *  @param dwReceiveDataLength bytes, 0: do not wait for data. @param dwLocalAddressLength,
 *  dwRemoteAddressLength bytes of room, at least 16 more than an address has. @param lpdwBytesReceived bytes,
 *  if done at once. @param lpOverlapped must not be NULL. Errors: WSA_IO_PENDING, WSAEINVAL (not listening,
 * an accept socket in use), WSAEFAULT (no room for the peer's address). A room that is too small (but for 0
 * bytes for the own address) makes it end with ERROR_INSUFFICIENT_BUFFER when somebody connects; the
 * connection goes to the next AcceptEx or accept. Closing the accept socket ends it with
 * WSA_OPERATION_ABORTED. */
BOOL PASCAL AcceptEx(SOCKET sListenSocket, SOCKET sAcceptSocket, PVOID lpOutputBuffer,
                     DWORD dwReceiveDataLength, DWORD dwLocalAddressLength, DWORD dwRemoteAddressLength,
                     LPDWORD lpdwBytesReceived, LPOVERLAPPED lpOverlapped);
/** Finds the addresses in the buffer that AcceptEx filled. The lengths are those given there. */
void PASCAL GetAcceptExSockaddrs(PVOID lpOutputBuffer, DWORD dwReceiveDataLength, DWORD dwLocalAddressLength,
                                 DWORD dwRemoteAddressLength, struct sockaddr **LocalSockaddr,
                                 LPINT LocalSockaddrLength, struct sockaddr **RemoteSockaddr,
                                 LPINT RemoteSockaddrLength);

typedef BOOL(PASCAL *LPFN_ACCEPTEX)(SOCKET sListenSocket, SOCKET sAcceptSocket, PVOID lpOutputBuffer,
                                    DWORD dwReceiveDataLength, DWORD dwLocalAddressLength,
                                    DWORD dwRemoteAddressLength, LPDWORD lpdwBytesReceived,
                                    LPOVERLAPPED lpOverlapped);
typedef void(PASCAL *LPFN_GETACCEPTEXSOCKADDRS)(PVOID lpOutputBuffer, DWORD dwReceiveDataLength,
                                                DWORD dwLocalAddressLength, DWORD dwRemoteAddressLength,
                                                struct sockaddr **LocalSockaddr, LPINT LocalSockaddrLength,
                                                struct sockaddr **RemoteSockaddr, LPINT RemoteSockaddrLength);
/** Connects a bound socket, and sends dwSendDataLength bytes with it (may be 0). @param lpdwBytesSent bytes,
 * if done at once. Errors: WSA_IO_PENDING, WSAEINVAL (not bound), WSAEISCONN, and as connect. */
typedef BOOL(PASCAL *LPFN_CONNECTEX)(SOCKET s, const struct sockaddr *name, int namelen, PVOID lpSendBuffer,
                                     DWORD dwSendDataLength, LPDWORD lpdwBytesSent,
                                     LPOVERLAPPED lpOverlapped);
/** Ends the connection. @param lpOverlapped NULL: waits. @param dwFlags TF_REUSE_SOCKET: afterwards the
 * socket can be given to AcceptEx or ConnectEx again. @param dwReserved must be 0. Errors: WSA_IO_PENDING,
 * WSAENOTCONN, WSAEINVAL. */
typedef BOOL(PASCAL *LPFN_DISCONNECTEX)(SOCKET s, LPOVERLAPPED lpOverlapped, DWORD dwFlags, DWORD dwReserved);

/* For sources that ask for these as well: WSAIoctl says WSAEINVAL, they are not there. */
typedef struct _TRANSMIT_FILE_BUFFERS {
    LPVOID Head;
    DWORD HeadLength;
    LPVOID Tail;
    DWORD TailLength;
} TRANSMIT_FILE_BUFFERS, *PTRANSMIT_FILE_BUFFERS, *LPTRANSMIT_FILE_BUFFERS;
typedef BOOL(PASCAL *LPFN_TRANSMITFILE)(SOCKET hSocket, HANDLE hFile, DWORD nNumberOfBytesToWrite,
                                        DWORD nNumberOfBytesPerSend, LPOVERLAPPED lpOverlapped,
                                        LPTRANSMIT_FILE_BUFFERS lpTransmitBuffers, DWORD dwReserved);
typedef INT(PASCAL *LPFN_WSARECVMSG)(SOCKET s, LPWSAMSG lpMsg, LPDWORD lpdwNumberOfBytesRecvd,
                                     LPWSAOVERLAPPED lpOverlapped,
                                     LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
typedef INT(PASCAL *LPFN_WSASENDMSG)(SOCKET s, LPWSAMSG lpMsg, DWORD dwFlags, LPDWORD lpNumberOfBytesSent,
                                     LPWSAOVERLAPPED lpOverlapped,
                                     LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
#define WSAID_TRANSMITFILE                                                             \
    {                                                                                  \
        0xb5367df0, 0xcbac, 0x11cf, { 0x95, 0xca, 0x00, 0x80, 0x5f, 0x48, 0xa1, 0x92 } \
    }
#define WSAID_WSARECVMSG                                                               \
    {                                                                                  \
        0xf689d7c8, 0x6f1f, 0x436b, { 0x8a, 0x53, 0xe5, 0x4f, 0xe3, 0x51, 0xc3, 0x22 } \
    }
#define WSAID_WSASENDMSG                                                               \
    {                                                                                  \
        0xa441e712, 0x754f, 0x43ca, { 0x84, 0xa7, 0x0d, 0xee, 0x44, 0xcf, 0x60, 0x6d } \
    }
#define WSAID_ACCEPTEX                                                                 \
    {                                                                                  \
        0xb5367df1, 0xcbac, 0x11cf, { 0x95, 0xca, 0x00, 0x80, 0x5f, 0x48, 0xa1, 0x92 } \
    }
#define WSAID_GETACCEPTEXSOCKADDRS                                                     \
    {                                                                                  \
        0xb5367df2, 0xcbac, 0x11cf, { 0x95, 0xca, 0x00, 0x80, 0x5f, 0x48, 0xa1, 0x92 } \
    }
#define WSAID_CONNECTEX                                                                \
    {                                                                                  \
        0x25a207b9, 0xddf3, 0x4660, { 0x8e, 0xe9, 0x76, 0xe5, 0x8c, 0x74, 0x06, 0x3e } \
    }
#define WSAID_DISCONNECTEX                                                             \
    {                                                                                  \
        0x7fda2e11, 0x8630, 0x436f, { 0xa0, 0x31, 0xf5, 0x36, 0xa6, 0xee, 0xc1, 0x57 } \
    }

LOOPFAST_WINSOCK_END

#endif
