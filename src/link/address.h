// The two addresses of a connection, and the name under which its ends find each other.
#pragma once

#include <netinet/in.h>
#include <sys/un.h>

#include <cstdint>

namespace loopfast {

/// One end's address. IPv4 addresses, also those a dual-stack socket shows as ::ffff:a.b.c.d, are kept as
/// IPv4: both ends must come to the same name whatever family their sockets have.
struct Endpoint {
    uint16_t family = 0;  ///< AF_INET or AF_INET6
    uint16_t port = 0;    ///< network byte order
    uint32_t scope = 0;   ///< IPv6 link-local only
    unsigned char ip[16] = {};

    bool operator==(const Endpoint&) const = default;
};

struct Tuple {
    Endpoint connector;
    Endpoint acceptor;
};

/// Fills `endpoint` from a socket address. @return false for a family that is neither IPv4 nor IPv6.
bool to_endpoint(const sockaddr* address, socklen_t size, Endpoint& endpoint);

/// The local and the remote address of a connected socket. @return 0 or -errno.
int endpoints_of(int fd, Endpoint& local, Endpoint& remote);

/// True for 127.0.0.0/8 and ::1.
bool is_loopback(const Endpoint& endpoint);

/// True when `remote` is an address of this host, as seen from a socket whose own address is `local`.
bool is_local(const Endpoint& local, const Endpoint& remote);

/// The abstract name of the connection's offer; `size` is the length of the socket address to use.
void offer_name(const Tuple& tuple, sockaddr_un& name, socklen_t& size);

}  // namespace loopfast
