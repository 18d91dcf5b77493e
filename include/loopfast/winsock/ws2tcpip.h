/* ws2tcpip.h: names and addresses of both families. */
#ifndef LOOPFAST_WINSOCK_WS2TCPIP_H
#define LOOPFAST_WINSOCK_WS2TCPIP_H

#include "mstcpip.h"
#include "winsock2.h"
#include "ws2ipdef.h"

LOOPFAST_WINSOCK_BEGIN

#define IN6ADDR_ANY_INIT \
    {                    \
        {                \
            { 0 }        \
        }                \
    }
#define IN6ADDR_LOOPBACK_INIT                                  \
    {                                                          \
        {                                                      \
            { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 } \
        }                                                      \
    }
extern const struct in6_addr in6addr_any LOOPFAST_WINSOCK_SYMBOL(in6addr_any)
    __attribute__((visibility("default")));
extern const struct in6_addr in6addr_loopback LOOPFAST_WINSOCK_SYMBOL(in6addr_loopback)
    __attribute__((visibility("default")));

/** Whether an address is ::, ::1, ::ffff:a.b.c.d, of a link, of a group; whether two are the same. */
static __inline int IN6_IS_ADDR_UNSPECIFIED(const struct in6_addr *a) {
    return memcmp(a, &in6addr_any, 16) == 0;
}
static __inline int IN6_IS_ADDR_LOOPBACK(const struct in6_addr *a) {
    return memcmp(a, &in6addr_loopback, 16) == 0;
}
static __inline int IN6_IS_ADDR_V4MAPPED(const struct in6_addr *a) {
    return memcmp(a, &in6addr_any, 10) == 0 && a->u.Word[5] == 0xffff;
}
static __inline int IN6_IS_ADDR_LINKLOCAL(const struct in6_addr *a) {
    return a->u.Byte[0] == 0xfe && (a->u.Byte[1] & 0xc0) == 0x80;
}
static __inline int IN6_IS_ADDR_MULTICAST(const struct in6_addr *a) { return a->u.Byte[0] == 0xff; }
static __inline int IN6_ADDR_EQUAL(const struct in6_addr *a, const struct in6_addr *b) {
    return memcmp(a, b, 16) == 0;
}

/** The port of an address of either family, in network order. */
#define SS_PORT(address) (((const struct sockaddr_in *)(address))->sin_port)

#define INET_ADDRSTRLEN 22
#define INET6_ADDRSTRLEN 65
#define NI_MAXHOST 1025
#define NI_MAXSERV 32
#define NI_NOFQDN 0x01
#define NI_NUMERICHOST 0x02
#define NI_NAMEREQD 0x04
#define NI_NUMERICSERV 0x08
#define NI_DGRAM 0x10
#define AI_PASSIVE 0x00000001
#define AI_CANONNAME 0x00000002
#define AI_NUMERICHOST 0x00000004
#define AI_NUMERICSERV 0x00000008
#define AI_ALL 0x00000100
#define AI_ADDRCONFIG 0x00000400
#define AI_V4MAPPED 0x00000800
#define EAI_AGAIN WSATRY_AGAIN
#define EAI_BADFLAGS WSAEINVAL
#define EAI_FAIL WSANO_RECOVERY
#define EAI_FAMILY WSAEAFNOSUPPORT
#define EAI_MEMORY WSA_NOT_ENOUGH_MEMORY
#define EAI_NONAME WSAHOST_NOT_FOUND
#define EAI_SERVICE WSATYPE_NOT_FOUND
#define EAI_SOCKTYPE WSAESOCKTNOSUPPORT

typedef struct addrinfo {
    int ai_flags;
    int ai_family;
    int ai_socktype;
    int ai_protocol;
    size_t ai_addrlen; /**< bytes */
    char *ai_canonname;
    struct sockaddr *ai_addr;
    struct addrinfo *ai_next;
} ADDRINFOA, *PADDRINFOA, ADDRINFO, *LPADDRINFO;
typedef struct addrinfoW {
    int ai_flags;
    int ai_family;
    int ai_socktype;
    int ai_protocol;
    size_t ai_addrlen; /**< bytes */
    PWSTR ai_canonname;
    struct sockaddr *ai_addr;
    struct addrinfoW *ai_next;
} ADDRINFOW, *PADDRINFOW;

/** Looks up the addresses of a host and service. @return 0 or the error: WSAHOST_NOT_FOUND,
 * WSATYPE_NOT_FOUND, WSATRY_AGAIN, WSANO_RECOVERY, WSAEINVAL, WSAEAFNOSUPPORT, WSAESOCKTNOSUPPORT,
 * WSA_NOT_ENOUGH_MEMORY. */
INT WSAAPI getaddrinfo(const char *nodename, const char *servname, const struct addrinfo *hints,
                       struct addrinfo **res) LOOPFAST_WINSOCK_SYMBOL(getaddrinfo);
/** Frees what getaddrinfo gave. */
void WSAAPI freeaddrinfo(LPADDRINFO pAddrInfo) LOOPFAST_WINSOCK_SYMBOL(freeaddrinfo);
/** getaddrinfo with 16-bit characters. */
INT WSAAPI GetAddrInfoW(PCWSTR pNodeName, PCWSTR pServiceName, const ADDRINFOW *pHints, PADDRINFOW *ppResult);
/** Frees what GetAddrInfoW gave. */
void WSAAPI FreeAddrInfoW(PADDRINFOW pAddrInfo);
#define GetAddrInfoA getaddrinfo
#define FreeAddrInfoA freeaddrinfo
#define GetAddrInfo LOOPFAST_WINSOCK_AW(GetAddrInfo)
#define FreeAddrInfo LOOPFAST_WINSOCK_AW(FreeAddrInfo)
/** The name of an address. @param hostlen, servlen bytes. @return 0 or the error, as getaddrinfo. */
INT WSAAPI getnameinfo(const SOCKADDR *sa, socklen_t salen, PCHAR host, DWORD hostlen, PCHAR serv,
                       DWORD servlen, INT flags) LOOPFAST_WINSOCK_SYMBOL(getnameinfo);
#define GetNameInfoA getnameinfo
/** @return a sentence about an error of getaddrinfo. */
char *gai_strerrorA(int ecode);
#define gai_strerror gai_strerrorA
/** Text to address. @return 1, 0 (not an address), -1: WSAEAFNOSUPPORT. */
INT WSAAPI inet_pton(INT Family, PCSTR pszAddrString, PVOID pAddrBuf) LOOPFAST_WINSOCK_SYMBOL(inet_pton);
/** Address to text. @param StringBufSize characters. @return the text or NULL: WSAEAFNOSUPPORT,
 *  WSAEINVAL (no room). */
PCSTR WSAAPI inet_ntop(INT Family, const void *pAddr, PSTR pStringBuf, size_t StringBufSize)
    LOOPFAST_WINSOCK_SYMBOL(inet_ntop);
/** The same with 16-bit characters. */
INT WSAAPI InetPtonW(INT Family, PCWSTR pszAddrString, PVOID pAddrBuf);
PCWSTR WSAAPI InetNtopW(INT Family, const void *pAddr, PWSTR pStringBuf, size_t StringBufSize);
#define InetPtonA inet_pton
#define InetNtopA inet_ntop
#define InetPton LOOPFAST_WINSOCK_AW(InetPton)
#define InetNtop LOOPFAST_WINSOCK_AW(InetNtop)

LOOPFAST_WINSOCK_END

#endif
