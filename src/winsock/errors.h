// One error has four names: Linux's errno, the WSAE number that socket calls give, the NTSTATUS in
// OVERLAPPED::Internal, and the ERROR number that a completion port gives.
#pragma once

#include "winsock/door.h"

namespace loopfast::winsock {

/// @param result 0 or -errno. @return 0 or a WSAE number, WSASYSCALLFAILURE for what has none.
int wsa_of_errno(long result);
NTSTATUS status_of_wsa(int error);
int wsa_of_status(NTSTATUS status);
DWORD dos_of_status(NTSTATUS status);
/// Of a finished operation.
inline int wsa_of_overlapped(const OVERLAPPED& overlapped) {
    return wsa_of_status(static_cast<NTSTATUS>(__atomic_load_n(&overlapped.Internal, __ATOMIC_ACQUIRE)));
}

}  // namespace loopfast::winsock
