/* windows.h: what sources that use sockets expect of it; not the Windows API. As there, it brings the socket
 * functions too, unless WIN32_LEAN_AND_MEAN is defined. */
#ifndef LOOPFAST_WINSOCK_WINDOWS_H
#define LOOPFAST_WINSOCK_WINDOWS_H
#define _WINDOWS_
#define _INC_WINDOWS

#include "winbase.h"
#include "windef.h"
#include "winerror.h"

#include "winsmall.h"

#ifndef WIN32_LEAN_AND_MEAN
#include "winsock2.h"
#endif

#endif
