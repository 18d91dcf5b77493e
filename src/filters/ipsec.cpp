// IPsec policies that could match packets of lo: both of a policy's ends must have an address of this host in
// them. For IPv4 the kernel leaves lo out of IPsec unless it was told otherwise (disable_xfrm,
// disable_policy).
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <string.h>

#include "base/syscall.h"
#include "filters/inspect.h"
#include "filters/netlink.h"

namespace loopfast {

namespace {

bool is_set(const char* file, Findings& findings) {
    const long fd = sys::call(SYS_openat, AT_FDCWD, sys::word(file), O_RDONLY | O_CLOEXEC);
    findings.unanswered(fd);
    if (fd < 0)
        return false;
    char text[4] = {};
    findings.unanswered(sys::read(static_cast<int>(fd), text, sizeof text - 1));
    sys::close(static_cast<int>(fd));
    return text[0] == '1';
}

bool same_prefix(const void* a, const void* b, unsigned bits) {
    const auto* const x = static_cast<const unsigned char*>(a);
    const auto* const y = static_cast<const unsigned char*>(b);
    if (memcmp(x, y, bits / 8) != 0)
        return false;
    const auto mask = static_cast<unsigned char>(0xff00U >> (bits % 8));
    return bits % 8 == 0 || ((x[bits / 8] ^ y[bits / 8]) & mask) == 0;
}

/// Whether an address of this host lies in a prefix.
bool has_local(uint16_t family, const xfrm_address_t& prefix, unsigned bits, Findings& findings) {
    const unsigned width = family == AF_INET ? 32 : 128;
    bits = bits < width ? bits : width;
    // All of 127.0.0.0/8 is local, listed or not.
    const unsigned char loopback[4] = {127, 0, 0, 0};
    if (bits == 0 || (family == AF_INET && same_prefix(&prefix, loopback, bits < 8 ? bits : 8)))
        return true;
    Netlink netlink(NETLINK_ROUTE);
    ifaddrmsg body{};
    body.ifa_family = static_cast<uint8_t>(family);
    Request request(RTM_GETADDR, NLM_F_DUMP, &body, sizeof body);
    bool found = false;
    const long result = netlink.ask(request, [&](const Answer& answer) {
        const Attributes attributes = answer.attributes<ifaddrmsg>();
        const Attribute local = attributes.find(IFA_LOCAL);
        const Attribute address = local.size != 0 ? local : attributes.find(IFA_ADDRESS);
        if (address.size * 8 == width && same_prefix(&prefix, address.data, bits))
            found = true;
    });
    return found || (result < 0 && !findings.unanswered(result));
}

}  // namespace

Sight inspect_ipsec(Findings& findings) {
    const bool v4_spared = is_set("/proc/sys/net/ipv4/conf/lo/disable_xfrm", findings) &&
                           is_set("/proc/sys/net/ipv4/conf/lo/disable_policy", findings);
    Netlink netlink(NETLINK_XFRM);
    const xfrm_userpolicy_id body{};
    Request request(XFRM_MSG_GETPOLICY, NLM_F_DUMP, &body, sizeof body);
    const auto one = [&](const Answer& answer) {
        if (answer.type != XFRM_MSG_NEWPOLICY || !answer.has<xfrm_userpolicy_info>())
            return;
        const auto policy = answer.header<xfrm_userpolicy_info>();
        const xfrm_selector& selector = policy.sel;
        // Without a transformation a policy that allows lets the packet be.
        if (policy.action == XFRM_POLICY_ALLOW &&
            answer.attributes<xfrm_userpolicy_info>().find(XFRMA_TMPL).size == 0)
            return;
        if ((selector.proto != 0 && selector.proto != IPPROTO_TCP) || policy.dir == XFRM_POLICY_FWD ||
            (selector.ifindex != 0 && selector.ifindex != 1))
            return;
        const uint16_t family = selector.family == AF_INET6 ? AF_INET6 : AF_INET;
        if ((family == AF_INET && v4_spared) ||
            !has_local(family, selector.saddr, selector.prefixlen_s, findings) ||
            !has_local(family, selector.daddr, selector.prefixlen_d, findings))
            return;
        findings.add(Kind::kIpsec, "IPsec: policy %u (%s, %s)", policy.index,
                     policy.dir == XFRM_POLICY_IN ? "in" : "out", family == AF_INET ? "IPv4" : "IPv6");
    };
    // What no policy matches may be blocked as well. A kernel that knows no such default says EINVAL.
    const xfrm_userpolicy_default nothing{};
    Request by_default(XFRM_MSG_GETDEFAULT, 0, &nothing, sizeof nothing);
    findings.unanswered(netlink.ask(by_default, [&](const Answer& answer) {
        const auto found = answer.header<xfrm_userpolicy_default>();
        if (found.in == XFRM_USERPOLICY_BLOCK || found.out == XFRM_USERPOLICY_BLOCK)
            findings.add(Kind::kIpsec, "IPsec: what no policy allows is blocked (%s)",
                         found.in == XFRM_USERPOLICY_BLOCK ? "in" : "out");
    }));
    const long result = netlink.ask(request, one);
    if (result == -EPERM || result == -EACCES)
        return Sight::kNotPermitted;
    if (result == -EPROTONOSUPPORT || result == -EAFNOSUPPORT || result == -EINVAL)
        return Sight::kNotThere;
    if (result < 0 && !findings.unanswered(result))
        findings.add(Kind::kIpsec, "IPsec: the policies cannot be read (error %ld)", -result);
    return Sight::kSeen;
}

}  // namespace loopfast
