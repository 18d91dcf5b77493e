// What is attached to lo itself: queueing disciplines, classifiers, XDP and tcx programs. rtnetlink tells
// these to everybody, but for tcx.
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include <initializer_list>

#include "base/syscall.h"
#include "filters/inspect.h"
#include "filters/netlink.h"

namespace loopfast {

namespace {

constexpr int kLo = 1;  // the kernel gives lo this number, in every namespace

// Newer than the headers of Debian 12.
constexpr uint32_t kTcxIngress = 46;
constexpr uint32_t kTcxEgress = 47;

template <typename Visit> long ask_about_lo(Visit visit) {
    Netlink netlink(NETLINK_ROUTE);
    ifinfomsg body{};
    body.ifi_index = kLo;
    Request request(RTM_GETLINK, 0, &body, sizeof body);
    const uint32_t wanted = RTEXT_FILTER_SKIP_STATS;
    request.put(IFLA_EXT_MASK, &wanted, sizeof wanted);
    return netlink.ask(request, visit);
}

/// The classifiers below one parent.
long ask_filters(uint32_t parent, const char* where, Findings& findings) {
    Netlink netlink(NETLINK_ROUTE);
    tcmsg body{};
    body.tcm_family = AF_UNSPEC;
    body.tcm_ifindex = kLo;
    body.tcm_parent = parent;
    Request request(RTM_GETTFILTER, NLM_F_DUMP, &body, sizeof body);
    bool told = false;
    return netlink.ask(request, [&](const Answer& answer) {
        if (answer.type != RTM_NEWTFILTER || told)
            return;
        const Attributes attributes = answer.attributes<tcmsg>();
        const char* const kind = attributes.find(TCA_KIND).text();
        // A program's name is in the options of "bpf", as attribute 7.
        const Attribute name = Attributes(attributes.find(TCA_OPTIONS)).find(7);
        const bool program = strcmp(kind, "bpf") == 0 && *name.text() != 0;
        findings.add(Kind::kTrafficControl, "tc: %s filter on lo, %s%s%s", *kind != 0 ? kind : "a", where,
                     program ? ", program " : "", program ? name.text() : "");
        told = true;
    });
}

}  // namespace

Sight inspect_traffic_control(Findings& findings) {
    struct Parent {
        uint32_t handle;
        const char* where;
    };
    Parent parents[8];
    uint32_t count = 0;
    Netlink netlink(NETLINK_ROUTE);
    tcmsg body{};
    body.tcm_family = AF_UNSPEC;
    body.tcm_ifindex = kLo;
    Request request(RTM_GETQDISC, NLM_F_DUMP, &body, sizeof body);
    const auto one = [&](const Answer& answer) {
        const auto header = answer.header<tcmsg>();
        if (answer.type != RTM_NEWQDISC || header.tcm_ifindex != kLo)
            return;
        const Attributes attributes = answer.attributes<tcmsg>();
        const Attribute kind = attributes.find(TCA_KIND);
        if (kind.is("noqueue"))
            return;
        if (kind.is("clsact") || kind.is("ingress")) {
            // By themselves they do nothing.
            parents[count < 8 ? count++ : 7] = {TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), "ingress"};
            if (kind.is("clsact"))
                parents[count < 8 ? count++ : 7] = {TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS), "egress"};
            return;
        }
        findings.add(Kind::kTrafficControl, "tc: qdisc %s on lo (handle %x:)", kind.text(),
                     header.tcm_handle >> 16);
    };
    long result = -EINTR;
    for (int attempt = 0; attempt < 5 && result == -EINTR; ++attempt) {
        count = 0;
        const uint32_t before = findings.count;
        result = netlink.ask(request, one);
        if (result == -EINTR)
            findings.count = before;
    }
    if (result < 0) {
        findings.unanswered(result);
        return result == -EOPNOTSUPP ? Sight::kNotThere : Sight::kNotPermitted;
    }
    for (uint32_t i = 0; i < count; ++i)
        findings.unanswered(ask_filters(parents[i].handle, parents[i].where, findings));
    return Sight::kSeen;
}

LoName name_of_lo(Findings& findings) {
    LoName name;
    findings.unanswered(ask_about_lo([&](const Answer& answer) {
        const Attribute found = answer.attributes<ifinfomsg>().find(IFLA_IFNAME);
        memset(name.text, 0, sizeof name.text);
        snprintf(name.text, sizeof name.text, "%s", found.text());
    }));
    return name;
}

Sight inspect_lo_programs(Findings& findings, bool privileged) {
    const long result = ask_about_lo([&](const Answer& answer) {
        // What the kernel lane has under way waits until lo is up again, or for ever.
        if (answer.has<ifinfomsg>() && (answer.header<ifinfomsg>().ifi_flags & IFF_UP) == 0)
            findings.add(Kind::kTrafficControl, "device: lo is down");
        const Attributes xdp(answer.attributes<ifinfomsg>().find(IFLA_XDP));
        const Attribute attached = xdp.find(IFLA_XDP_ATTACHED);
        if (attached.size != 0 && attached.data[0] != XDP_ATTACHED_NONE)
            findings.add(Kind::kXdp, "XDP: program %u on lo", xdp.find(IFLA_XDP_PROG_ID).as<uint32_t>());
    });
    findings.unanswered(result);
    if (result < 0)
        return Sight::kNotPermitted;
    if (!privileged)
        return Sight::kSeen;
    for (const uint32_t type : {kTcxIngress, kTcxEgress}) {
        uint32_t programs[8] = {};
        union bpf_attr attributes;
        memset(&attributes, 0, sizeof attributes);
        attributes.query.target_fd = kLo;  // for tcx the device's number
        attributes.query.attach_type = type;
        attributes.query.prog_ids = reinterpret_cast<uint64_t>(programs);
        attributes.query.prog_cnt = 8;
        const long answer = sys::bpf(BPF_PROG_QUERY, &attributes, sizeof attributes.query);
        findings.unanswered(answer);
        if ((answer == 0 || answer == -ENOSPC) && attributes.query.prog_cnt != 0)
            findings.add(Kind::kTrafficControl, "tcx: program %u on lo, %s", programs[0],
                         type == kTcxIngress ? "ingress" : "egress");
    }
    return Sight::kSeen;
}

}  // namespace loopfast
