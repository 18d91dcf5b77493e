/* loopfast_winsock.h: what this library has and Windows has not. */
#ifndef LOOPFAST_WINSOCK_H
#define LOOPFAST_WINSOCK_H

#include "winsock2.h"

LOOPFAST_WINSOCK_BEGIN

/** @return the descriptor behind a socket, for loopfast_lane() and loopfast_reason() of loopfast.h; it stays
 * the library's. -1: WSAENOTSOCK. */
int loopfast_descriptor(SOCKET s);

LOOPFAST_WINSOCK_END

#endif
