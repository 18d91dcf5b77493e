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

/// The version of all that passes over a link, and of the proof. It is a part of the names, so that ends of
/// different versions do not even meet. Tests build a library with another one.
#ifndef LOOPFAST_LINK_VERSION
#define LOOPFAST_LINK_VERSION 2
#endif
constexpr uint32_t kLinkVersion = LOOPFAST_LINK_VERSION;
static_assert(kLinkVersion > 0 && kLinkVersion < 1000);

/// Fills `endpoint` from a socket address. @return false for a family that is neither IPv4 nor IPv6.
bool to_endpoint(const sockaddr* address, socklen_t size, Endpoint& endpoint);

/// The local and the remote address of a connected socket. @return 0 or -errno.
int endpoints_of(int fd, Endpoint& local, Endpoint& remote);

/// True for 127.0.0.0/8 and ::1.
bool is_loopback(const Endpoint& endpoint);

/// True when `remote` is an address of this host, as seen from a socket whose own address is `local`.
bool is_local(const Endpoint& local, const Endpoint& remote);

/// The abstract name of the connection's offer, on which its connector listens; `size` is the length of the
/// socket address to use.
void offer_name(const Tuple& tuple, sockaddr_un& name, socklen_t& size);

/// The abstract name of the acceptor's end of the link. Each of the two names belongs to one socket at a
/// time, by the kernel's rule; the proof of possession rests on that (link/possession.h).
void answer_name(const Tuple& tuple, sockaddr_un& name, socklen_t& size);

}  // namespace loopfast
