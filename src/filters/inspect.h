// What on this machine looks at loopback packets, asked of the kernel: one function for each facility. They
// use raw system calls and allocate nothing (base/syscall.h); all but the first two need CAP_NET_ADMIN in the
// network namespace, and the one for control groups needs it in the first user namespace.
#pragma once

#include "filters/findings.h"

namespace loopfast {

/// AF_PACKET sockets on lo or on all devices, as /proc/net/packet lists them. `fd` is that file, opened by
/// open_captures(), and is read from its beginning.
Sight inspect_captures(int fd, Findings& findings);
/// @return a descriptor or -errno.
int open_captures();
/// Raw sockets for TCP, which get a copy of every segment that comes in.
Sight inspect_raw_sockets(Findings& findings);

/// What lo is called: it may have been given another name, and rules may name it so. All 16 bytes count.
struct LoName {
    char text[16] = "lo";
};
inline constexpr LoName kLoUsually{};
LoName name_of_lo(Findings& findings);

/// Queueing disciplines and classifiers on lo.
Sight inspect_traffic_control(Findings& findings);
/// Programs attached to lo: XDP, which everybody may see, and tcx, for which one needs the privilege. And
/// whether lo is up.
Sight inspect_lo_programs(Findings& findings, bool privileged);

/// nftables, and so iptables-nft.
Sight inspect_nftables(Findings& findings, const LoName& lo);
/// A number that changes with every change of the rules; kNotPermitted: rules are not told to this process.
Sight nftables_generation(Findings& findings, uint64_t& generation);

/// The legacy tables of iptables and ip6tables.
Sight inspect_iptables(Findings& findings, const LoName& lo);

/// IPsec policies that match addresses of this host on both sides, and the default for all others.
Sight inspect_ipsec(Findings& findings);

/// Socket-buffer programs in effect in the control group behind this descriptor of its directory.
Sight inspect_cgroup(int directory, const char* name, Findings& findings);
/// The caller's own group: its directory, with its path in `path`, or -errno.
int open_own_cgroup(char* path, unsigned size);
/// Another group of the same hierarchy by its number, or -errno. Needs CAP_DAC_READ_SEARCH.
int open_cgroup(int directory, uint64_t number);
/// The number of the group behind its directory; 0 if it is not told.
uint64_t number_of_cgroup(int directory);

/// The two ends of a connection as one of them sees it, and what of its socket routing rules may look at.
struct Ends {
    uint16_t family;  ///< AF_INET or AF_INET6
    const unsigned char* local;
    const unsigned char* remote;
    uint16_t local_port;  ///< network byte order
    uint16_t remote_port;
    uint32_t mark;
    uint32_t device;  ///< that it is bound to, or the scope of its addresses; or 0
};
enum class Way : uint32_t {
    kLo,
    kElsewhere,
    kUntold,  ///< the kernel would not say
    kNotNow   ///< for want of memory or descriptors
};
/// Where what is sent from one end to the other goes.
Way way_between(const Ends& ends);

/// A socket that is told of each change of addresses, routes and routing rules, or -errno; and whether it
/// was. It is not read, so that relatives who share it all see it: who has seen one takes a new socket.
int open_way_notices();
bool has_way_notice(int fd);

/// Whether address translation leads this connection from or to another address than its sockets show.
/// `service` and `port` are the accepting end's address as this end's socket shows it.
bool is_translated(int fd, uint16_t family, const unsigned char* service, uint16_t port);

/// A filter of the socket's own, which the program or who gave it the socket has attached.
bool has_socket_filter(int fd);

}  // namespace loopfast
