/* winservices.h: what a host knows of services, protocols and its own providers. Included by winsock2.h.
 *
 * The functions of the first kind give memory of the thread's, which its next call of the same function uses
 * again, or NULL and an error: WSANO_DATA (there is no such entry), WSAEFAULT (no name), WSANOTINITIALISED.
 */
#ifndef LOOPFAST_WINSOCK_WINSERVICES_H
#define LOOPFAST_WINSOCK_WINSERVICES_H

/** A service. The port is in network order. */
struct servent {
    char *s_name;
    char **s_aliases;
    char *s_proto;
    short s_port;
};
typedef struct servent SERVENT, *PSERVENT, *LPSERVENT;
/** A protocol. */
struct protoent {
    char *p_name;
    char **p_aliases;
    short p_proto;
};
typedef struct protoent PROTOENT, *PPROTOENT, *LPPROTOENT;

/** The service of this name or alias. @param proto "tcp", "udp", or NULL for the first one of that name. */
struct servent *WSAAPI getservbyname(const char *name, const char *proto)
    LOOPFAST_WINSOCK_SYMBOL(getservbyname);
/** The service at this port. @param port in network order. @param proto as above. */
struct servent *WSAAPI getservbyport(int port, const char *proto) LOOPFAST_WINSOCK_SYMBOL(getservbyport);
/** The protocol of this name or alias. */
struct protoent *WSAAPI getprotobyname(const char *name) LOOPFAST_WINSOCK_SYMBOL(getprotobyname);
/** The protocol of this number, such as IPPROTO_TCP. */
struct protoent *WSAAPI getprotobynumber(int number) LOOPFAST_WINSOCK_SYMBOL(getprotobynumber);
/** The host that has an address. @param addr the bytes of it, in network order. @param len 4 or 16.
 *  @param type AF_INET or AF_INET6. Errors also: WSAHOST_NOT_FOUND, WSATRY_AGAIN, WSANO_RECOVERY,
 *  WSAEAFNOSUPPORT. */
struct hostent *WSAAPI gethostbyaddr(const char *addr, int len, int type)
    LOOPFAST_WINSOCK_SYMBOL(gethostbyaddr);

/** The providers, one for each kind of socket. @param lpiProtocols NULL for all, or numbers such as
 *  IPPROTO_TCP with a 0 behind the last. @param lpdwBufferLength bytes; receives what is needed when that is
 *  more. @return how many there are, or SOCKET_ERROR: WSAENOBUFS (no room), WSAEFAULT, WSANOTINITIALISED. */
int WSAAPI WSAEnumProtocolsA(LPINT lpiProtocols, LPWSAPROTOCOL_INFOA lpProtocolBuffer,
                             LPDWORD lpdwBufferLength);
/** The same with 16-bit characters in the descriptions. */
int WSAAPI WSAEnumProtocolsW(LPINT lpiProtocols, LPWSAPROTOCOL_INFOW lpProtocolBuffer,
                             LPDWORD lpdwBufferLength);
#define WSAEnumProtocols LOOPFAST_WINSOCK_AW(WSAEnumProtocols)

#endif
