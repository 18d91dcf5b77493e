/* mstcpip.h: control codes of TCP, for WSAIoctl. */
#ifndef LOOPFAST_WINSOCK_MSTCPIP_H
#define LOOPFAST_WINSOCK_MSTCPIP_H

#include "ws2def.h"

/** Opts a TCP socket in (a 4-byte Boolean not 0) or out (0) of the loopback fast path, before connect or
 *  before the connection is accepted; see docs/winsock.md. 0x98000010. */
#ifndef SIO_LOOPBACK_FAST_PATH
#define SIO_LOOPBACK_FAST_PATH _WSAIOW(IOC_VENDOR, 16)
#endif
#define SIO_KEEPALIVE_VALS _WSAIOW(IOC_VENDOR, 4) /**< in: struct tcp_keepalive */

struct tcp_keepalive {
    ULONG onoff;
    ULONG keepalivetime;     /**< milliseconds of silence before the first probe */
    ULONG keepaliveinterval; /**< milliseconds between probes */
};

#endif
