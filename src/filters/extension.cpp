// The xtables matches that decide about new connections only, and those that always hold. See packet.h.
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_state.h>
#include <linux/netfilter/xt_tcpudp.h>
#include <string.h>

#include "filters/packet.h"

namespace loopfast {

namespace {

Match judge_conntrack(const xt_conntrack_mtinfo3& info, const Place& place) {
    if ((info.match_flags & XT_CONNTRACK_STATE) == 0 || !place.tracked)
        return Match::kMaybe;
    const bool inverted = (info.invert_flags & XT_CONNTRACK_STATE) != 0;
    const bool established = (info.state_mask & kEstablishedBit) != 0;
    if (established == inverted)
        return Match::kNever;
    return info.match_flags == XT_CONNTRACK_STATE ? Match::kAlways : Match::kMaybe;
}

Match judge_ports(const __u16 (&range)[2], bool inverted) {
    return range[0] == 0 && range[1] == 0xffff ? (inverted ? Match::kNever : Match::kAlways) : Match::kMaybe;
}

Match judge_tcp(const xt_tcp& info) {
    Bits flags;
    flags.set_byte(0, kTcpFlags, kKnownTcpFlags);
    const unsigned char nothing = 0;
    flags.combine(0, 0, &info.flg_mask, &nothing, 1);
    Match match = flags.equal(0, &info.flg_cmp, 1);
    if ((info.invflags & XT_TCP_INV_FLAGS) != 0)
        match = opposite(match);
    match = both(match, judge_ports(info.spts, (info.invflags & XT_TCP_INV_SRCPT) != 0));
    match = both(match, judge_ports(info.dpts, (info.invflags & XT_TCP_INV_DSTPT) != 0));
    return info.option != 0 ? both(match, Match::kMaybe) : match;
}

}  // namespace

Match judge_extension(const char* name, unsigned revision, const unsigned char* data, size_t size,
                      const Place& place) {
    if (strcmp(name, "comment") == 0)
        return Match::kAlways;
    if (strcmp(name, "conntrack") == 0 && (revision == 2 || revision == 3) &&
        size >= sizeof(xt_conntrack_mtinfo2)) {
        // Revision 3 has more ports at its end and nothing else.
        xt_conntrack_mtinfo3 info{};
        memcpy(&info, data, size < sizeof info ? size : sizeof info);
        return judge_conntrack(info, place);
    }
    if (strcmp(name, "state") == 0 && size >= sizeof(xt_state_info) && place.tracked) {
        xt_state_info info;
        memcpy(&info, data, sizeof info);
        return (info.statemask & kEstablishedBit) != 0 ? Match::kAlways : Match::kNever;
    }
    if (strcmp(name, "tcp") == 0 && size >= sizeof(xt_tcp)) {
        xt_tcp info;
        memcpy(&info, data, sizeof info);
        return judge_tcp(info);
    }
    return Match::kMaybe;
}

}  // namespace loopfast
