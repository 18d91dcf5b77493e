// See address.h.
#include "link/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/syscall.h"

namespace loopfast {

bool to_endpoint(const sockaddr* address, socklen_t size, Endpoint& endpoint) {
    endpoint = {};
    if (size < sizeof(sa_family_t))
        return false;
    if (address->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
        sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        endpoint.family = AF_INET;
        endpoint.port = v4.sin_port;
        memcpy(endpoint.ip, &v4.sin_addr, 4);
        return true;
    }
    // 24 bytes: the kernel takes an IPv6 address without its scope as well.
    if (address->sa_family == AF_INET6 && size >= 24) {
        sockaddr_in6 v6{};
        memcpy(&v6, address, size < sizeof v6 ? size : sizeof v6);
        endpoint.port = v6.sin6_port;
        if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
            endpoint.family = AF_INET;
            memcpy(endpoint.ip, v6.sin6_addr.s6_addr + 12, 4);
            return true;
        }
        endpoint.family = AF_INET6;
        memcpy(endpoint.ip, &v6.sin6_addr, 16);
        if (IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr))
            endpoint.scope = v6.sin6_scope_id;
        return true;
    }
    return false;
}

int endpoints_of(int fd, Endpoint& local, Endpoint& remote) {
    sockaddr_storage storage;
    auto* address = reinterpret_cast<sockaddr*>(&storage);
    socklen_t size = sizeof storage;
    int result = sys::getsockname(fd, address, &size);
    if (result < 0)
        return result;
    if (!to_endpoint(address, size, local))
        return -EAFNOSUPPORT;
    size = sizeof storage;
    result = sys::getpeername(fd, address, &size);
    if (result < 0)
        return result;
    return to_endpoint(address, size, remote) ? 0 : -EAFNOSUPPORT;
}

bool is_loopback(const Endpoint& endpoint) {
    if (endpoint.family == AF_INET)
        return endpoint.ip[0] == 127;
    static constexpr unsigned char kLoopback6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    return memcmp(endpoint.ip, kLoopback6, sizeof kLoopback6) == 0;
}

bool is_local(const Endpoint& local, const Endpoint& remote) {
    if (local.family != remote.family)
        return false;
    if (is_loopback(remote))
        return true;
    if (memcmp(local.ip, remote.ip, sizeof local.ip) == 0)
        return true;
    // The addresses of a host are those one can bind to. (Where the system allows binding to any address,
    // a remote connection passes here and then finds no offer: the lookup is the real test.)
    const int probe = sys::socket(remote.family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return false;
    int result;
    if (remote.family == AF_INET) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        memcpy(&address.sin_addr, remote.ip, 4);
        result = sys::bind(probe, &address, sizeof address);
    } else {
        sockaddr_in6 address{};
        address.sin6_family = AF_INET6;
        memcpy(&address.sin6_addr, remote.ip, 16);
        address.sin6_scope_id = remote.scope;
        result = sys::bind(probe, &address, sizeof address);
    }
    sys::close(probe);
    return result == 0;
}

namespace {

char* hex(char* out, const void* data, int size) {
    static constexpr char kDigits[] = "0123456789abcdef";
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (int i = 0; i < size; ++i) {
        *out++ = kDigits[bytes[i] >> 4];
        *out++ = kDigits[bytes[i] & 15];
    }
    return out;
}

char* endpoint_text(char* out, const Endpoint& endpoint) {
    out = hex(out, endpoint.ip, endpoint.family == AF_INET ? 4 : 16);
    *out++ = '.';
    out = hex(out, &endpoint.port, 2);
    return out;
}

/// "\0loopfast/2/4/7f000001.c350-7f000001.18eb": the longest, for IPv6, has 92 bytes of the 107.
char* common_name(char* out, const Tuple& tuple) {
    memcpy(out, "loopfast/", 9);
    out += 9;
    for (uint32_t digit = kLinkVersion >= 100 ? 100 : kLinkVersion >= 10 ? 10 : 1; digit != 0; digit /= 10)
        *out++ = static_cast<char>('0' + kLinkVersion / digit % 10);
    *out++ = '/';
    *out++ = tuple.connector.family == AF_INET ? '4' : '6';
    *out++ = '/';
    out = endpoint_text(out, tuple.connector);
    *out++ = '-';
    return endpoint_text(out, tuple.acceptor);
}

}  // namespace

void offer_name(const Tuple& tuple, sockaddr_un& name, socklen_t& size) {
    name = {};
    name.sun_family = AF_UNIX;
    const char* const end = common_name(name.sun_path + 1, tuple);
    size = static_cast<socklen_t>(end - reinterpret_cast<char*>(&name));
}

void answer_name(const Tuple& tuple, sockaddr_un& name, socklen_t& size) {
    name = {};
    name.sun_family = AF_UNIX;
    char* end = common_name(name.sun_path + 1, tuple);
    *end++ = '/';
    *end++ = 'a';
    size = static_cast<socklen_t>(end - reinterpret_cast<char*>(&name));
}

}  // namespace loopfast
