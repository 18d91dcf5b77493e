/* winsock2.h: the socket functions of Windows, for Linux, on loopfast.
 *
 * A SOCKET is a handle of this library's own, not a descriptor; loopfast_descriptor() (loopfast_winsock.h)
 * tells the descriptor behind it. Calls before WSAStartup fail with WSANOTINITIALISED, a handle that is not a
 * socket gives WSAENOTSOCK, memory that cannot be read or written gives WSAEFAULT, a call from inside a
 * blocking hook or a condition function gives WSAEINPROGRESS, a closed network or a broken fast path
 * WSAENETDOWN: these hold for every function and are not repeated below. Functions that return int return 0
 * or SOCKET_ERROR unless something else is said; those that return BOOL, FALSE on failure; the reason is in
 * WSAGetLastError(), always a number of winerror.h.
 *
 * Overlapped operations (an OVERLAPPED is given and the socket has the overlapped attribute): 0 means that
 * the operation is done *and* that its completion has been indicated; SOCKET_ERROR with WSA_IO_PENDING that
 * the completion will follow. Buffers and the OVERLAPPED stay the library's until then; the WSABUF array does
 * not. The completion: a routine, if one is given (runs in the calling thread's next alertable wait), else a
 * packet on the port the socket belongs to, and the event in OVERLAPPED::hEvent, and always
 * OVERLAPPED::Internal.
 */
#ifndef LOOPFAST_WINSOCK_WINSOCK2_H
#define LOOPFAST_WINSOCK_WINSOCK2_H
#define _WINSOCK2API_
#define _WINSOCKAPI_

#include "winbase.h"
#include "windef.h"
#include "ws2def.h"

LOOPFAST_WINSOCK_BEGIN

#define WINSOCK_VERSION MAKEWORD(2, 2)
#define WSAAPI WINAPI
#ifndef WINSOCK_API_LINKAGE
#define WINSOCK_API_LINKAGE
#endif

/* Start and end. */

#define WSADESCRIPTION_LEN 256
#define WSASYS_STATUS_LEN 128
typedef struct WSAData {
    WORD wVersion;
    WORD wHighVersion;
    unsigned short iMaxSockets;
    unsigned short iMaxUdpDg;
    char *lpVendorInfo;
    char szDescription[WSADESCRIPTION_LEN + 1];
    char szSystemStatus[WSASYS_STATUS_LEN + 1];
} WSADATA, *LPWSADATA;

/** Begins the use of the library; each success wants its WSACleanup. @param wVersionRequested the highest
 *  version wanted, 2.2 here. @param lpWSAData receives the version in use and a description. @return 0 or the
 *  error itself: WSAVERNOTSUPPORTED (below 1.0), WSAEFAULT. */
int WSAAPI WSAStartup(WORD wVersionRequested, LPWSADATA lpWSAData);
/** Ends one use; the last one closes all sockets of the process. */
int WSAAPI WSACleanup(void);
/** @return the calling thread's last error, the same slot as GetLastError(). */
int WSAAPI WSAGetLastError(void);
/** Sets the calling thread's last error. */
void WSAAPI WSASetLastError(int iError);

/* Sockets. */

typedef unsigned int GROUP;
#define SG_UNCONSTRAINED_GROUP 1
#define SG_CONSTRAINED_GROUP 2
#define MAX_PROTOCOL_CHAIN 7
#define BASE_PROTOCOL 1
#define LAYERED_PROTOCOL 0
#define WSAPROTOCOL_LEN 255
#define FROM_PROTOCOL_INFO (-1)
#define XP1_CONNECTIONLESS 0x00000001
#define XP1_GUARANTEED_DELIVERY 0x00000002
#define XP1_GUARANTEED_ORDER 0x00000004
#define XP1_MESSAGE_ORIENTED 0x00000008
#define XP1_GRACEFUL_CLOSE 0x00000020
#define XP1_EXPEDITED_DATA 0x00000040
#define XP1_SUPPORT_BROADCAST 0x00000200
#define XP1_SUPPORT_MULTIPOINT 0x00000400
#define XP1_IFS_HANDLES 0x00020000
#define PFL_MATCHES_PROTOCOL_ZERO 0x00000008
#define BIGENDIAN 0
#define LITTLEENDIAN 1
#define SECURITY_PROTOCOL_NONE 0
typedef struct _WSAPROTOCOLCHAIN {
    int ChainLen;
    DWORD ChainEntries[MAX_PROTOCOL_CHAIN];
} WSAPROTOCOLCHAIN, *LPWSAPROTOCOLCHAIN;
typedef struct _WSAPROTOCOL_INFOA {
    DWORD dwServiceFlags1, dwServiceFlags2, dwServiceFlags3, dwServiceFlags4;
    DWORD dwProviderFlags;
    GUID ProviderId;
    DWORD dwCatalogEntryId;
    WSAPROTOCOLCHAIN ProtocolChain;
    int iVersion, iAddressFamily, iMaxSockAddr, iMinSockAddr, iSocketType, iProtocol, iProtocolMaxOffset;
    int iNetworkByteOrder, iSecurityScheme;
    DWORD dwMessageSize, dwProviderReserved;
    CHAR szProtocol[WSAPROTOCOL_LEN + 1];
} WSAPROTOCOL_INFOA, *LPWSAPROTOCOL_INFOA;
typedef struct _WSAPROTOCOL_INFOW {
    DWORD dwServiceFlags1, dwServiceFlags2, dwServiceFlags3, dwServiceFlags4;
    DWORD dwProviderFlags;
    GUID ProviderId;
    DWORD dwCatalogEntryId;
    WSAPROTOCOLCHAIN ProtocolChain;
    int iVersion, iAddressFamily, iMaxSockAddr, iMinSockAddr, iSocketType, iProtocol, iProtocolMaxOffset;
    int iNetworkByteOrder, iSecurityScheme;
    DWORD dwMessageSize, dwProviderReserved;
    WCHAR szProtocol[WSAPROTOCOL_LEN + 1];
} WSAPROTOCOL_INFOW, *LPWSAPROTOCOL_INFOW;
typedef LOOPFAST_WINSOCK_AW(WSAPROTOCOL_INFO) WSAPROTOCOL_INFO;
typedef LOOPFAST_WINSOCK_AW(LPWSAPROTOCOL_INFO) LPWSAPROTOCOL_INFO;

#define WSA_FLAG_OVERLAPPED 0x01
#define WSA_FLAG_NO_HANDLE_INHERIT 0x80

/** Makes a socket with the overlapped attribute. @param af AF_INET, AF_INET6. @param type SOCK_STREAM,
 *  SOCK_DGRAM. @param protocol IPPROTO_TCP, IPPROTO_UDP or 0. @return the socket, or INVALID_SOCKET:
 *  WSAEAFNOSUPPORT, WSAESOCKTNOSUPPORT, WSAEPROTONOSUPPORT, WSAEPROTOTYPE, WSAEMFILE, WSAENOBUFS. */
SOCKET WSAAPI socket(int af, int type, int protocol) LOOPFAST_WINSOCK_SYMBOL(socket);
/** The same with a choice of attributes. @param lpProtocolInfo NULL, or what FROM_PROTOCOL_INFO (-1) in the
 *  first three stands for. @param g must be 0. @param dwFlags WSA_FLAG_OVERLAPPED,
 * WSA_FLAG_NO_HANDLE_INHERIT. Errors also: WSAEINVAL (group, flags). */
SOCKET WSAAPI WSASocketA(int af, int type, int protocol, LPWSAPROTOCOL_INFOA lpProtocolInfo, GROUP g,
                         DWORD dwFlags);
/** The same with 16-bit characters in the protocol's description. */
SOCKET WSAAPI WSASocketW(int af, int type, int protocol, LPWSAPROTOCOL_INFOW lpProtocolInfo, GROUP g,
                         DWORD dwFlags);
#define WSASocket LOOPFAST_WINSOCK_AW(WSASocket)
/** Closes a socket. What is pending on it ends with WSA_OPERATION_ABORTED, blocking calls of other threads
 *  with WSAEINTR. Bytes that a send has taken still arrive. Errors: WSAEWOULDBLOCK (non-blocking with a
 * linger time and bytes left; it stays open). */
int WSAAPI closesocket(SOCKET s);
/** Gives a socket its own address. @param namelen bytes. Errors: WSAEINVAL (bound already), WSAEADDRINUSE,
 *  WSAEADDRNOTAVAIL, WSAEACCES, WSAEFAULT (too short, wrong family), WSAEAFNOSUPPORT. */
int WSAAPI bind(SOCKET s, const struct sockaddr *name, int namelen) LOOPFAST_WINSOCK_SYMBOL(bind);
/** Makes a bound socket listen. @param backlog connections that wait, SOMAXCONN for the system's most.
 *  Errors: WSAEINVAL (not bound), WSAEISCONN, WSAEOPNOTSUPP, WSAEADDRINUSE. */
int WSAAPI listen(SOCKET s, int backlog) LOOPFAST_WINSOCK_SYMBOL(listen);
/** Takes a connection; it is marked for the fast path like the listener, and has its options.
 *  @param addr, addrlen receive the peer's address, or both NULL. @return the socket, or INVALID_SOCKET:
 *  WSAEWOULDBLOCK, WSAEINVAL (not listening), WSAEMFILE, WSAEFAULT (no room for the address), WSAEINTR. */
SOCKET WSAAPI accept(SOCKET s, struct sockaddr *addr, int *addrlen) LOOPFAST_WINSOCK_SYMBOL(accept);
/** Connects. Errors: WSAEWOULDBLOCK (non-blocking, under way), WSAEALREADY, WSAEISCONN, WSAEINVAL
 * (listening), WSAECONNREFUSED, WSAETIMEDOUT, WSAENETUNREACH, WSAEHOSTUNREACH, WSAEADDRNOTAVAIL,
 * WSAEAFNOSUPPORT, WSAEINTR. */
int WSAAPI connect(SOCKET s, const struct sockaddr *name, int namelen) LOOPFAST_WINSOCK_SYMBOL(connect);
/** Ends one or both directions. @param how SD_RECEIVE, SD_SEND or SD_BOTH. Errors: WSAENOTCONN, WSAEINVAL. */
int WSAAPI shutdown(SOCKET s, int how) LOOPFAST_WINSOCK_SYMBOL(shutdown);
#define SD_RECEIVE 0
#define SD_SEND 1
#define SD_BOTH 2
/** The socket's own address. Errors: WSAEINVAL (not bound), WSAEFAULT (no room). */
int WSAAPI getsockname(SOCKET s, struct sockaddr *name, int *namelen) LOOPFAST_WINSOCK_SYMBOL(getsockname);
/** The peer's address. Errors: WSAENOTCONN, WSAEFAULT (no room). */
int WSAAPI getpeername(SOCKET s, struct sockaddr *name, int *namelen) LOOPFAST_WINSOCK_SYMBOL(getpeername);
/** Reads an option. @param optlen bytes, in: room, out: used. Errors: WSAENOPROTOOPT, WSAEFAULT (no room),
 *  WSAEINVAL (level). */
int WSAAPI getsockopt(SOCKET s, int level, int optname, char *optval, int *optlen)
    LOOPFAST_WINSOCK_SYMBOL(getsockopt);
/** Sets an option. Errors: WSAENOPROTOOPT, WSAEFAULT (too short), WSAEINVAL (value, level, state),
 *  WSAENOTCONN, WSAEACCES. */
int WSAAPI setsockopt(SOCKET s, int level, int optname, const char *optval, int optlen)
    LOOPFAST_WINSOCK_SYMBOL(setsockopt);
/** FIONBIO (*argp not 0: non-blocking), FIONREAD (bytes that a receive would get), SIOCATMARK (1: no urgent
 *  byte is waiting). Errors: WSAEOPNOTSUPP, WSAEINVAL (FIONBIO 0 under WSAEventSelect). */
int WSAAPI ioctlsocket(SOCKET s, int cmd, u_long *argp);

/* Sending and receiving. Blocking sends return when all is taken. A non-blocking stream send takes all of its
 * buffer, however large, while the queue was not full before it. */

/** Receives. @param len bytes. @param flags MSG_PEEK, MSG_OOB, MSG_WAITALL. @return bytes, 0 at the end of
 * the stream. Errors: WSAEWOULDBLOCK, WSAENOTCONN, WSAECONNRESET, WSAECONNABORTED, WSAESHUTDOWN, WSAEMSGSIZE
 * (a datagram was cut), WSAETIMEDOUT, WSAEINTR, WSAEOPNOTSUPP. */
int WSAAPI recv(SOCKET s, char *buf, int len, int flags) LOOPFAST_WINSOCK_SYMBOL(recv);
/** Receives, and says from whom. */
int WSAAPI recvfrom(SOCKET s, char *buf, int len, int flags, struct sockaddr *from, int *fromlen)
    LOOPFAST_WINSOCK_SYMBOL(recvfrom);
/** Sends. @param len bytes. @param flags MSG_OOB, MSG_DONTROUTE. @return bytes. Errors: WSAEWOULDBLOCK,
 *  WSAENOTCONN, WSAECONNRESET, WSAECONNABORTED, WSAESHUTDOWN, WSAEMSGSIZE, WSAETIMEDOUT, WSAEINTR. */
int WSAAPI send(SOCKET s, const char *buf, int len, int flags) LOOPFAST_WINSOCK_SYMBOL(send);
/** Sends to an address. */
int WSAAPI sendto(SOCKET s, const char *buf, int len, int flags, const struct sockaddr *to, int tolen)
    LOOPFAST_WINSOCK_SYMBOL(sendto);

/* Waiting for several sockets. */

/* A program may define FD_SETSIZE before it includes this header (see sys/select.h here). What the C library
 * defines is not its word: that says __FD_SETSIZE, which is another number while we look. */
#pragma push_macro("__FD_SETSIZE")
#undef __FD_SETSIZE
#define __FD_SETSIZE 0x7fffffff
#if !defined(FD_SETSIZE) || FD_SETSIZE == 0x7fffffff
#undef FD_SETSIZE
#define FD_SETSIZE 64
#endif
#undef __FD_SETSIZE
#pragma pop_macro("__FD_SETSIZE")
typedef struct loopfast_winsock_fd_set {
    UINT fd_count;
    SOCKET fd_array[FD_SETSIZE];
} loopfast_winsock_fd_set;
#define fd_set loopfast_winsock_fd_set
typedef fd_set *PFD_SET, *LPFD_SET;
/** @return not 0 if the socket is in the set. */
int WSAAPI __WSAFDIsSet(SOCKET fd, fd_set *set);
/** Waits until a socket of one of the sets (each may be NULL, not all) is ready, and leaves the ready ones in
 *  them. A failed connect shows in exceptfds. @param nfds ignored. @param timeout NULL: no limit. @return how
 *  many are ready, 0 after the time. Errors: WSAEINVAL (no sockets, bad time), WSAENOTSOCK, WSAEINTR. */
#ifdef __cplusplus
extern "C++" { /* beside the C library's, which has other types */
int WSAAPI select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, PTIMEVAL timeout)
    LOOPFAST_WINSOCK_SYMBOL(select);
}
#else
int WSAAPI loopfast_winsock_select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds,
                                   PTIMEVAL timeout);
#endif
#undef FD_SET
#undef FD_CLR
#undef FD_ZERO
#undef FD_ISSET
#define FD_ZERO(set) ((set)->fd_count = 0)
#define FD_ISSET(fd, set) __WSAFDIsSet((SOCKET)(fd), (fd_set *)(set))
#define FD_SET(fd, set)                                                                     \
    do {                                                                                    \
        UINT loopfast_i = 0;                                                                \
        while (loopfast_i < (set)->fd_count && (set)->fd_array[loopfast_i] != (SOCKET)(fd)) \
            ++loopfast_i;                                                                   \
        if (loopfast_i == (set)->fd_count && (set)->fd_count < FD_SETSIZE)                  \
            (set)->fd_array[(set)->fd_count++] = (SOCKET)(fd);                              \
    } while (0)
#define FD_CLR(fd, set)                                                                     \
    do {                                                                                    \
        UINT loopfast_i = 0;                                                                \
        while (loopfast_i < (set)->fd_count && (set)->fd_array[loopfast_i] != (SOCKET)(fd)) \
            ++loopfast_i;                                                                   \
        if (loopfast_i < (set)->fd_count) {                                                 \
            for (; loopfast_i + 1 < (set)->fd_count; ++loopfast_i)                          \
                (set)->fd_array[loopfast_i] = (set)->fd_array[loopfast_i + 1];              \
            --(set)->fd_count;                                                              \
        }                                                                                   \
    } while (0)

#undef POLLRDNORM
#undef POLLRDBAND
#undef POLLIN
#undef POLLPRI
#undef POLLWRNORM
#undef POLLOUT
#undef POLLWRBAND
#undef POLLERR
#undef POLLHUP
#undef POLLNVAL
#define POLLRDNORM 0x0100
#define POLLRDBAND 0x0200
#define POLLIN (POLLRDNORM | POLLRDBAND)
#define POLLPRI 0x0400
#define POLLWRNORM 0x0010
#define POLLOUT POLLWRNORM
#define POLLWRBAND 0x0020
#define POLLERR 0x0001
#define POLLHUP 0x0002
#define POLLNVAL 0x0004
typedef struct loopfast_winsock_pollfd {
    SOCKET fd;
    SHORT events;
    SHORT revents;
} WSAPOLLFD, *PWSAPOLLFD, *LPWSAPOLLFD;
/** Waits for any of nfds sockets; a handle that is INVALID_SOCKET is skipped. @param timeout milliseconds,
 * below 0: no limit. @return how many have revents, 0 after the time. Errors: WSAEINVAL (no sockets, events
 * that may not be asked for), WSAENOTSOCK (none is a socket). */
int WSAAPI WSAPoll(LPWSAPOLLFD fdArray, ULONG nfds, INT timeout);

/* Overlapped operations. */

#define WSAEVENT HANDLE
#define LPWSAEVENT LPHANDLE
#define WSAOVERLAPPED OVERLAPPED
typedef struct _OVERLAPPED *LPWSAOVERLAPPED;
#define WSA_IO_PENDING ERROR_IO_PENDING
#define WSA_IO_INCOMPLETE ERROR_IO_INCOMPLETE
#define WSA_INVALID_HANDLE ERROR_INVALID_HANDLE
#define WSA_INVALID_PARAMETER ERROR_INVALID_PARAMETER
#define WSA_NOT_ENOUGH_MEMORY ERROR_NOT_ENOUGH_MEMORY
#define WSA_OPERATION_ABORTED ERROR_OPERATION_ABORTED
#define WSA_INVALID_EVENT ((WSAEVENT)NULL)
#define WSA_MAXIMUM_WAIT_EVENTS MAXIMUM_WAIT_OBJECTS
#define WSA_WAIT_FAILED WAIT_FAILED
#define WSA_WAIT_EVENT_0 WAIT_OBJECT_0
#define WSA_WAIT_IO_COMPLETION WAIT_IO_COMPLETION
#define WSA_WAIT_TIMEOUT WAIT_TIMEOUT
#define WSA_INFINITE INFINITE

/** @param dwError 0 or a WSAE number. @param cbTransferred bytes. @param dwFlags as a receive returns them.
 */
typedef void(CALLBACK *LPWSAOVERLAPPED_COMPLETION_ROUTINE)(DWORD dwError, DWORD cbTransferred,
                                                           LPWSAOVERLAPPED lpOverlapped, DWORD dwFlags);

/** Receives into dwBufferCount buffers. @param lpNumberOfBytesRecvd bytes, if done at once; may be NULL when
 *  overlapped. @param lpFlags in: MSG_PEEK, MSG_OOB, MSG_PARTIAL, MSG_WAITALL; out: MSG_PARTIAL. Errors: as
 *  recv, WSA_IO_PENDING, WSAEINVAL. */
int WSAAPI WSARecv(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesRecvd,
                   LPDWORD lpFlags, LPWSAOVERLAPPED lpOverlapped,
                   LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
/** The same, and says from whom; lpFrom and lpFromlen stay the library's until the completion. */
int WSAAPI WSARecvFrom(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesRecvd,
                       LPDWORD lpFlags, struct sockaddr *lpFrom, LPINT lpFromlen,
                       LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
/** Sends dwBufferCount buffers, in the order of the calls. Errors: as send, WSA_IO_PENDING. */
int WSAAPI WSASend(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesSent,
                   DWORD dwFlags, LPWSAOVERLAPPED lpOverlapped,
                   LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
/** The same, to an address (ignored on a connected stream). */
int WSAAPI WSASendTo(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesSent,
                     DWORD dwFlags, const struct sockaddr *lpTo, int iTolen, LPWSAOVERLAPPED lpOverlapped,
                     LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
/** A control code. @param lpcbBytesReturned bytes written to the output, must not be NULL. Codes:
 *  SIO_LOOPBACK_FAST_PATH, SIO_KEEPALIVE_VALS, SIO_GET_EXTENSION_FUNCTION_POINTER, FIONBIO, FIONREAD,
 *  SIOCATMARK, and those that docs/winsock.md lists. Errors: WSAEFAULT (lpcbBytesReturned NULL, a buffer too
 *  short or bad), WSAEINVAL (an output buffer where none belongs), WSAEOPNOTSUPP (unknown code, wrong kind of
 *  socket), WSA_IO_PENDING. */
int WSAAPI WSAIoctl(SOCKET s, DWORD dwIoControlCode, LPVOID lpvInBuffer, DWORD cbInBuffer,
                    LPVOID lpvOutBuffer, DWORD cbOutBuffer, LPDWORD lpcbBytesReturned,
                    LPWSAOVERLAPPED lpOverlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine);
/** The result of an overlapped operation. @param fWait not 0: wait for it. @return TRUE if it is over and
 *  succeeded. Errors: WSA_IO_INCOMPLETE, the operation's, WSAENOTSOCK. */
BOOL WSAAPI WSAGetOverlappedResult(SOCKET s, LPWSAOVERLAPPED lpOverlapped, LPDWORD lpcbTransfer, BOOL fWait,
                                   LPDWORD lpdwFlags);

/* Events. */

/** Makes an event that stays set until it is reset. @return it, or WSA_INVALID_EVENT: WSA_NOT_ENOUGH_MEMORY.
 */
WSAEVENT WSAAPI WSACreateEvent(void);
/** Closes an event. Errors: WSA_INVALID_HANDLE. */
BOOL WSAAPI WSACloseEvent(WSAEVENT hEvent);
/** Sets an event. Errors: WSA_INVALID_HANDLE. */
BOOL WSAAPI WSASetEvent(WSAEVENT hEvent);
/** Resets an event. Errors: WSA_INVALID_HANDLE. */
BOOL WSAAPI WSAResetEvent(WSAEVENT hEvent);
/** Waits for one or all of cEvents (1 to 64) events. @param dwTimeout milliseconds or WSA_INFINITE. @return
 *  WSA_WAIT_EVENT_0 + index, WSA_WAIT_TIMEOUT, WSA_WAIT_IO_COMPLETION (alertable, routines ran), or
 *  WSA_WAIT_FAILED: WSA_INVALID_HANDLE, WSA_INVALID_PARAMETER. */
DWORD WSAAPI WSAWaitForMultipleEvents(DWORD cEvents, const WSAEVENT *lphEvents, BOOL fWaitAll,
                                      DWORD dwTimeout, BOOL fAlertable);

#define FD_READ_BIT 0
#define FD_READ (1 << FD_READ_BIT)
#define FD_WRITE_BIT 1
#define FD_WRITE (1 << FD_WRITE_BIT)
#define FD_OOB_BIT 2
#define FD_OOB (1 << FD_OOB_BIT)
#define FD_ACCEPT_BIT 3
#define FD_ACCEPT (1 << FD_ACCEPT_BIT)
#define FD_CONNECT_BIT 4
#define FD_CONNECT (1 << FD_CONNECT_BIT)
#define FD_CLOSE_BIT 5
#define FD_CLOSE (1 << FD_CLOSE_BIT)
#define FD_QOS_BIT 6
#define FD_QOS (1 << FD_QOS_BIT)
#define FD_GROUP_QOS_BIT 7
#define FD_GROUP_QOS (1 << FD_GROUP_QOS_BIT)
#define FD_ROUTING_INTERFACE_CHANGE_BIT 8
#define FD_ROUTING_INTERFACE_CHANGE (1 << FD_ROUTING_INTERFACE_CHANGE_BIT)
#define FD_ADDRESS_LIST_CHANGE_BIT 9
#define FD_ADDRESS_LIST_CHANGE (1 << FD_ADDRESS_LIST_CHANGE_BIT)
#define FD_MAX_EVENTS 10
#define FD_ALL_EVENTS ((1 << FD_MAX_EVENTS) - 1)
typedef struct _WSANETWORKEVENTS {
    LONG lNetworkEvents;
    int iErrorCode[FD_MAX_EVENTS]; /**< by FD_..._BIT: 0 or a WSAE number */
} WSANETWORKEVENTS, *LPWSANETWORKEVENTS;
/** Ties an event to what happens on a socket, and makes the socket non-blocking; lNetworkEvents 0 unties.
 *  An event is recorded once and then again only after its re-enabling call (FD_READ: a receive; FD_WRITE: a
 *  send that said WSAEWOULDBLOCK; FD_ACCEPT: accept; FD_OOB: a receive of it; FD_CONNECT, FD_CLOSE: never),
 *  FD_READ and FD_ACCEPT also when more has come. Selecting anew does not change that.
 *  Errors: WSAEINVAL (an event that is none). */
int WSAAPI WSAEventSelect(SOCKET s, WSAEVENT hEventObject, LONG lNetworkEvents);
/** Takes what is recorded, and resets the event (if not NULL) in the same breath. */
int WSAAPI WSAEnumNetworkEvents(SOCKET s, WSAEVENT hEventObject, LPWSANETWORKEVENTS lpNetworkEvents);

/* Connecting and accepting with more to say. */

typedef ULONG SERVICETYPE;
typedef struct _flowspec {
    ULONG TokenRate, TokenBucketSize, PeakBandwidth, Latency, DelayVariation;
    SERVICETYPE ServiceType;
    ULONG MaxSduSize, MinimumPolicedSize;
} FLOWSPEC, *PFLOWSPEC, *LPFLOWSPEC;
typedef struct _QualityOfService {
    FLOWSPEC SendingFlowspec;
    FLOWSPEC ReceivingFlowspec;
    WSABUF ProviderSpecific;
} QOS, *LPQOS;
#define CF_ACCEPT 0x0000
#define CF_REJECT 0x0001
#define CF_DEFER 0x0002
/** Asked by WSAAccept about a connection. @param lpCallerId its address. @param lpCalleeId ours. @param g
 * must stay 0. The rest is NULL or empty for TCP. @return CF_ACCEPT, CF_REJECT or CF_DEFER. */
typedef int(CALLBACK *LPCONDITIONPROC)(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
                                       LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g,
                                       DWORD_PTR dwCallbackData);
/** accept, after asking the condition function (may be NULL). Errors: as accept; WSAECONNREFUSED (the
 * function said CF_REJECT), WSATRY_AGAIN (CF_DEFER: the next WSAAccept gets the same connection), WSAEINVAL
 * (its answer was none of the three). */
SOCKET WSAAPI WSAAccept(SOCKET s, struct sockaddr *addr, LPINT addrlen, LPCONDITIONPROC lpfnCondition,
                        DWORD_PTR dwCallbackData);
/** connect. @param lpCallerData, lpCalleeData must be NULL or empty: TCP has no connect data. */
int WSAAPI WSAConnect(SOCKET s, const struct sockaddr *name, int namelen, LPWSABUF lpCallerData,
                      LPWSABUF lpCalleeData, LPQOS lpSQOS, LPQOS lpGQOS);
/** Connects to the first address of a list that answers, in order. The socket is AF_INET6 with IPV6_V6ONLY
 * off for a list with both families. @param LocalAddressLength, LocalAddress, RemoteAddressLength,
 * RemoteAddress receive the two addresses, or NULL. @param timeout of the whole, or NULL. @param Reserved
 * must be NULL. Errors: WSAEINVAL, WSAETIMEDOUT, the last attempt's. */
BOOL PASCAL WSAConnectByList(SOCKET s, PSOCKET_ADDRESS_LIST SocketAddressList, LPDWORD LocalAddressLength,
                             LPSOCKADDR LocalAddress, LPDWORD RemoteAddressLength, LPSOCKADDR RemoteAddress,
                             PTIMEVAL timeout, LPWSAOVERLAPPED Reserved);
/** Connects to a host and service by name. Errors: as above, WSAHOST_NOT_FOUND, WSATYPE_NOT_FOUND. */
BOOL PASCAL WSAConnectByNameA(SOCKET s, LPSTR nodename, LPSTR servicename, LPDWORD LocalAddressLength,
                              LPSOCKADDR LocalAddress, LPDWORD RemoteAddressLength, LPSOCKADDR RemoteAddress,
                              PTIMEVAL timeout, LPWSAOVERLAPPED Reserved);
/** The same with 16-bit characters. */
BOOL PASCAL WSAConnectByNameW(SOCKET s, LPWSTR nodename, LPWSTR servicename, LPDWORD LocalAddressLength,
                              LPSOCKADDR LocalAddress, LPDWORD RemoteAddressLength, LPSOCKADDR RemoteAddress,
                              PTIMEVAL timeout, LPWSAOVERLAPPED Reserved);
#define WSAConnectByName LOOPFAST_WINSOCK_AW(WSAConnectByName)
/** Sends no data and ends the sending direction. @param lpOutboundDisconnectData must be NULL or empty. */
int WSAAPI WSASendDisconnect(SOCKET s, LPWSABUF lpOutboundDisconnectData);
/** Ends the receiving direction. @param lpInboundDisconnectData must be NULL or empty. */
int WSAAPI WSARecvDisconnect(SOCKET s, LPWSABUF lpInboundDisconnectData);

/* Blocking hooks, of version 1.1: a function that blocking calls of the thread call over and over while they
 * wait. Until it says FALSE it is called again; then the call sleeps. */

/** Sets the calling thread's hook. @return the one before. */
FARPROC WSAAPI WSASetBlockingHook(FARPROC lpBlockFunc);
/** Takes the hook away. */
int WSAAPI WSAUnhookBlockingHook(void);
/** @return TRUE inside a hook. */
BOOL WSAAPI WSAIsBlocking(void);
/** Ends the blocking call in whose hook (or completion routine, or signal handler) it is called, with
 * WSAEINTR. Errors: WSAEINVAL (there is none). */
int WSAAPI WSACancelBlockingCall(void);

/* Names and byte order. */

/** @return host order to network order, 32 and 16 bits, and back. */
u_long WSAAPI htonl(u_long hostlong) LOOPFAST_WINSOCK_SYMBOL(htonl);
u_short WSAAPI htons(u_short hostshort) LOOPFAST_WINSOCK_SYMBOL(htons);
u_long WSAAPI ntohl(u_long netlong) LOOPFAST_WINSOCK_SYMBOL(ntohl);
u_short WSAAPI ntohs(u_short netshort) LOOPFAST_WINSOCK_SYMBOL(ntohs);
/** The same through pointers, by socket. */
int WSAAPI WSAHtonl(SOCKET s, u_long hostlong, u_long *lpnetlong);
int WSAAPI WSAHtons(SOCKET s, u_short hostshort, u_short *lpnetshort);
int WSAAPI WSANtohl(SOCKET s, u_long netlong, u_long *lphostlong);
int WSAAPI WSANtohs(SOCKET s, u_short netshort, u_short *lphostshort);
/** @return an IPv4 address in dots, in network order, or INADDR_NONE. */
unsigned int WSAAPI inet_addr(const char *cp) LOOPFAST_WINSOCK_SYMBOL(inet_addr);
/** @return the address in dots, in memory that the thread's next call uses again. */
char *WSAAPI inet_ntoa(struct in_addr in) LOOPFAST_WINSOCK_SYMBOL(inet_ntoa);
struct hostent {
    char *h_name;
    char **h_aliases;
    short h_addrtype;
    short h_length;
    char **h_addr_list;
};
#define h_addr h_addr_list[0]
typedef struct hostent HOSTENT, *PHOSTENT, *LPHOSTENT;
/** Looks up IPv4 addresses by name. @return them in memory that the thread's next call uses again, or NULL:
 *  WSAHOST_NOT_FOUND, WSATRY_AGAIN, WSANO_RECOVERY, WSANO_DATA. */
struct hostent *WSAAPI gethostbyname(const char *name) LOOPFAST_WINSOCK_SYMBOL(gethostbyname);
/** Text of an address, with its port if that is not 0. @param lpProtocolInfo may be NULL. @param
 *  lpdwAddressStringLength characters, in: room, out: used with the 0. Errors: WSAEFAULT, WSAEINVAL. */
INT WSAAPI WSAAddressToStringA(LPSOCKADDR lpsaAddress, DWORD dwAddressLength,
                               LPWSAPROTOCOL_INFOA lpProtocolInfo, LPSTR lpszAddressString,
                               LPDWORD lpdwAddressStringLength);
INT WSAAPI WSAAddressToStringW(LPSOCKADDR lpsaAddress, DWORD dwAddressLength,
                               LPWSAPROTOCOL_INFOW lpProtocolInfo, LPWSTR lpszAddressString,
                               LPDWORD lpdwAddressStringLength);
/** Address of a text such as "127.0.0.1:80" or "[::1]:80". Errors: WSAEINVAL, WSAEFAULT (no room). */
INT WSAAPI WSAStringToAddressA(LPSTR AddressString, INT AddressFamily, LPWSAPROTOCOL_INFOA lpProtocolInfo,
                               LPSOCKADDR lpAddress, LPINT lpAddressLength);
INT WSAAPI WSAStringToAddressW(LPWSTR AddressString, INT AddressFamily, LPWSAPROTOCOL_INFOW lpProtocolInfo,
                               LPSOCKADDR lpAddress, LPINT lpAddressLength);
#define WSAAddressToString LOOPFAST_WINSOCK_AW(WSAAddressToString)
#define WSAStringToAddress LOOPFAST_WINSOCK_AW(WSAStringToAddress)
#include "winservices.h"
/** This host's name. @param namelen bytes. Errors: WSAEFAULT (no room). */
int WSAAPI loopfast_winsock_gethostname(char *name, int namelen);
#if defined(__cplusplus)
#define gethostname(...) loopfast_winsock_gethostname(__VA_ARGS__)
#elif __STDC_VERSION__ >= 199901L /* where an argument may be a compound literal, with commas */
#define gethostname(...) loopfast_winsock_gethostname(__VA_ARGS__)
#define select(...) loopfast_winsock_select(__VA_ARGS__)
#else
#define gethostname(name, namelen) loopfast_winsock_gethostname(name, namelen)
#define select(nfds, read, write, except, timeout) loopfast_winsock_select(nfds, read, write, except, timeout)
#endif

LOOPFAST_WINSOCK_END

#endif
