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
    // No way at all: packets do not arrive.
    if (result == -ENETUNREACH || result == -EHOSTUNREACH)
        return Way::kElsewhere;
    Findings failed;
    return result < 0 && failed.unanswered(result) ? Way::kNotNow : way;
}

}  // namespace loopfast
