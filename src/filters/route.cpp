// The way that packets take between two addresses of this host. It leads through lo, unless rules of policy
// routing send them out through another device and back, through whoever stands there: whose filters and
// captures nothing here knows.
#include <errno.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <string.h>

#include "filters/inspect.h"
#include "filters/netlink.h"

namespace loopfast {

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
