// Addresses: in Linux's layout inside, in Windows' where the program sees them. They differ in the number of
// the IPv6 family.
#pragma once

#include "winsock/door.h"

namespace loopfast::winsock {

struct Address {
    unsigned size = 0;
    alignas(8) unsigned char bytes[32] = {};  ///< either family's fit

    int family() const;  ///< Linux's number
    unsigned port() const;
    bool is_any() const;
    void map_into_6();  ///< an IPv4 address becomes ::ffff:a.b.c.d
};

/// Linux's number of a family, or -1.
int native_family(int family);
int windows_family(int family);
/// @param family Linux's number of the socket's. @return 0, WSAEFAULT or WSAEAFNOSUPPORT.
int from_windows(const sockaddr* name, int size, int family, Address& address);
/// @return 0, or WSAEFAULT: no room, or bad memory.
int to_windows(const Address& address, sockaddr* name, int* size);

}  // namespace loopfast::winsock
