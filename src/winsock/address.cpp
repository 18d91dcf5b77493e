// See address.h.
#include "winsock/address.h"

#include "winsock/native.h"
#include "winsock/probe.h"

namespace loopfast::winsock {

namespace {
constexpr unsigned kSize4 = sizeof(sockaddr_in);
constexpr unsigned kSize6 = sizeof(sockaddr_in6);
}  // namespace

int Address::family() const {
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}
unsigned Address::port() const { return static_cast<unsigned>(bytes[2]) << 8 | bytes[3]; }
bool Address::is_any() const {
    static const unsigned char zero[16] = {};
    return family() == native::kInet ? memcmp(bytes + 4, zero, 4) == 0 : memcmp(bytes + 8, zero, 16) == 0;
}
void Address::map_into_6() {
    unsigned char host[4];
    memcpy(host, bytes + 4, sizeof host);
    const unsigned char port[2] = {bytes[2], bytes[3]};
    memset(bytes, 0, sizeof bytes);
    const uint16_t family = native::kInet6;
    memcpy(bytes, &family, sizeof family);
    memcpy(bytes + 2, port, sizeof port);
    bytes[18] = bytes[19] = 0xff;
    memcpy(bytes + 20, host, sizeof host);
    size = kSize6;
}

int native_family(int family) {
    return family == AF_INET ? native::kInet : family == AF_INET6 ? native::kInet6 : -1;
}
int windows_family(int family) {
    return family == native::kInet ? AF_INET : family == native::kInet6 ? AF_INET6 : AF_UNSPEC;
}

int from_windows(const sockaddr* name, int size, int family, Address& address) {
    const unsigned wanted = family == native::kInet6 ? kSize6 : kSize4;
    if (size < static_cast<int>(sizeof(ADDRESS_FAMILY)) || !readable(name, static_cast<size_t>(size)))
        return WSAEFAULT;
    if (native_family(name->sa_family) != family)
        return WSAEAFNOSUPPORT;
    if (static_cast<unsigned>(size) < wanted)
        return WSAEFAULT;
    memcpy(address.bytes, name, wanted);
    const auto number = static_cast<uint16_t>(family);
    memcpy(address.bytes, &number, sizeof number);
    address.size = wanted;
    return 0;
}

int to_windows(const Address& address, sockaddr* name, int* size) {
    if (!writable(size) || *size < static_cast<int>(address.size) || !writable(name, address.size))
        return WSAEFAULT;
    memcpy(name, address.bytes, address.size);
    name->sa_family = static_cast<USHORT>(windows_family(address.family()));
    *size = static_cast<int>(address.size);
    return 0;
}

}  // namespace loopfast::winsock
