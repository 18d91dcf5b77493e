// The way that packets take between two addresses of this host. It leads through lo, unless rules of policy
// routing send them out through another device and back, through whoever stands there: whose filters and
// captures nothing here knows. And it leads to the socket with these addresses, unless they are translated:
// then that is another connection's.
#include <errno.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <string.h>

#include "base/syscall.h"
#include "filters/inspect.h"
#include "filters/netlink.h"

namespace loopfast {

namespace {
constexpr int kOriginalDestination = 80;  // SO_ORIGINAL_DST, and IPv6's of the same number
}

bool is_translated(int fd, uint16_t family, const unsigned char* service, uint16_t port) {
    // Connection tracking tells everybody where the connector of a connection of his meant to go. Where there
    // is none, or it does not know the connection, nothing is translated.
    if (family == AF_INET) {
        sockaddr_in meant{};
        socklen_t size = sizeof meant;
        return sys::getsockopt(fd, SOL_IP, kOriginalDestination, &meant, &size) == 0 &&
               (meant.sin_port != port || memcmp(&meant.sin_addr, service, 4) != 0);
    }
    sockaddr_in6 meant{};
    socklen_t size = sizeof meant;
    return sys::getsockopt(fd, SOL_IPV6, kOriginalDestination, &meant, &size) == 0 &&
           (meant.sin6_port != port || memcmp(&meant.sin6_addr, service, 16) != 0);
}

Way way_between(const Ends& ends) {
    constexpr uint32_t kLo = 1;
    const size_t size = ends.family == AF_INET ? 4 : 16;
    rtmsg body{};
    body.rtm_family = static_cast<uint8_t>(ends.family);
    body.rtm_dst_len = body.rtm_src_len = static_cast<uint8_t>(size * 8);
    Request request(RTM_GETROUTE, 0, &body, sizeof body);
    request.put(RTA_DST, ends.remote, size);
    request.put(RTA_SRC, ends.local, size);
    const uint8_t protocol = IPPROTO_TCP;
    request.put(RTA_IP_PROTO, &protocol, sizeof protocol);
    request.put(RTA_SPORT, &ends.local_port, sizeof ends.local_port);
    request.put(RTA_DPORT, &ends.remote_port, sizeof ends.remote_port);
    if (ends.mark != 0)
        request.put(RTA_MARK, &ends.mark, sizeof ends.mark);
    if (ends.device != 0)
        request.put(RTA_OIF, &ends.device, sizeof ends.device);
    Netlink netlink(NETLINK_ROUTE);
    Way way = Way::kUntold;
    const long result = netlink.ask(request, [&](const Answer& answer) {
        if (answer.type != RTM_NEWROUTE || !answer.has<rtmsg>())
            return;
        const bool local = answer.header<rtmsg>().rtm_type == RTN_LOCAL &&
                           answer.attributes<rtmsg>().find(RTA_OIF).as<uint32_t>() == kLo;
        way = local ? Way::kLo : Way::kElsewhere;
    });
    Findings failed;
    if (result < 0 && failed.unanswered(result))
        return Way::kNotNow;
    // No way at all, a rule or a route that forbids it, a source that is no address of this host any more:
    // packets do not arrive.
    return result < 0 && netlink.answered() ? Way::kElsewhere : way;
}

int open_way_notices() {
    const int fd = sys::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (fd < 0)
        return fd;
    // One notice is as good as many, and nobody reads them: the least room that the kernel gives.
    const int least = 1;
    sys::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_IFADDR |
                        RTMGRP_IPV6_ROUTE | 1U << (RTNLGRP_IPV6_RULE - 1);
    const int result = sys::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    if (result == 0)
        return fd;
    sys::close(fd);
    return result;
}

bool has_way_notice(int fd) {
    char byte;
    const long size = sys::recv(fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT);
    return size != -EAGAIN && size != -EINTR;  // an overflow is one as well
}

}  // namespace loopfast
