// What every file of the Winsock door begins with. Rules for the code in this folder:
//
//   1. A public function translates: handle to object, Windows' arguments to ours, our result to a return
//   value
//      and the thread's last error. What it does it does through functions that return 0 or a WSAE number.
//   2. POSIX is called in native.cpp only.
//   3. No errno value ever leaves; wsa_of_errno() knows every one.
//   4. Memory that a program names is looked at with probe.h before it is used.
//   5. Order of locks: a direction of a socket, then the lock of a port, of the dispatcher or of a thread's
//      routines; of these never two. Nothing of the program is called under any of them.
//   6. Nothing is allocated by an overlapped send or receive, once a few have been made.
#pragma once

#include "loopfast_winsock.h"
#include "mstcpip.h"
#include "mswsock.h"
#include "ws2spi.h"
#include "ws2tcpip.h"

#include "winsock/lock.h"

#define LOOPFAST_API extern "C" __attribute__((visibility("default")))

namespace loopfast::winsock {

/// The thread's last error: WSAGetLastError() and GetLastError() are this word.
extern constinit thread_local DWORD last_error;

/// As most functions of the interface report. A success clears the last error, as on Windows; only
/// closesocket and WSACleanup, which programs call before they ask for it, leave it alone.
inline int reported(int error) {
    last_error = static_cast<DWORD>(error);
    return error == 0 ? 0 : SOCKET_ERROR;
}
/// As those report that return a BOOL.
inline BOOL truth(int error) {
    if (error == 0)
        return TRUE;
    last_error = static_cast<DWORD>(error);
    return FALSE;
}

}  // namespace loopfast::winsock
