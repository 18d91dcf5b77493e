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

/// Queueing disciplines and classifiers on lo.
Sight inspect_traffic_control(Findings& findings);
/// Programs attached to lo: XDP, which everybody may see, and tcx, for which one needs the privilege.
Sight inspect_lo_programs(Findings& findings, bool privileged);

/// nftables, and so iptables-nft.
Sight inspect_nftables(Findings& findings);
/// Changes with every change of the rules; 0 when it is not told.
uint64_t nftables_generation(Findings& findings);

/// The legacy tables of iptables and ip6tables.
Sight inspect_iptables(Findings& findings);

/// IPsec policies that match addresses of this host on both sides.
Sight inspect_ipsec(Findings& findings);

/// Socket-buffer programs in effect in the control group behind this descriptor of its directory.
Sight inspect_cgroup(int directory, const char* name, Findings& findings);
/// The caller's own group: its directory, with its path in `path`, or -errno.
int open_own_cgroup(char* path, unsigned size);

/// A filter of the socket's own, which the program or who gave it the socket has attached.
bool has_socket_filter(int fd);

}  // namespace loopfast
