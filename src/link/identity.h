// Who owns the other end of a TCP connection, as the kernel tells it, and whether the process at the other
// end of a link is that owner.
#pragma once

#include <cstdint>

#include "link/address.h"
#include "link/possession.h"

namespace loopfast {

/// What the kernel says about one TCP socket.
struct SocketFacts {
    uint32_t uid;
    uint64_t cookie;  ///< the kernel's name for this very socket, never used again
    bool established;
    uint64_t cgroup;        ///< the control group it was made in; 0 where the kernel does not say
    int sign;               ///< its sign, see possession.h; kNoSign where the kernel does not show it
    bool counted;           ///< what follows is told
    uint64_t acknowledged;  ///< bytes it sent that have arrived; a connector's SYN is one more
    uint64_t unacknowledged;
    uint64_t received;
};

/// Looks the socket with this local and remote address up in this process's network namespace, through
/// sock_diag; needs no privilege. `socket_family` is the family of our own end: a dual-stack socket is
/// found under IPv6. @return false when there is none.
bool look_up_socket(const Endpoint& local, const Endpoint& remote, SocketFacts& facts);

/// The name of the socket at the other end of a link; `size` as in offer_name. @return false when it has
/// none.
bool peer_name_of(int link_fd, sockaddr_un& name, socklen_t& size);

/// The cookie of a socket of ours; 0 when the kernel has none to give.
uint64_t cookie_of(int fd);

/// True when both sockets live in the same network namespace, as the kernel says (Linux 5.14 and later).
bool same_namespace(int tcp_fd, int link_fd);

/// The process at the other end of an AF_UNIX connection, as it was when it connected or listened.
struct Credentials {
    int pid;  ///< 0 when it lives in a process namespace that this one cannot see
    uint32_t uid;
};
bool credentials_of(int link_fd, Credentials& credentials);

/// True when a uid that the kernel reports to us stands for exactly one user. In a user namespace several
/// users may look the same ("nobody"); such a match proves nothing.
bool uid_is_exact(uint32_t uid);

}  // namespace loopfast
