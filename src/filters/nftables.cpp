// nftables: would a rule do anything to a packet with data of an established connection over lo?
//
// Every base chain on a hook that such a packet passes is walked as the kernel would walk it, with what is
// known of the packet (packet.h) in place of the packet. A rule counts if it may be reached, may match, and
// does something: counts, logs, drops, marks, queues, anything but accept. So of
//
//     ct state established,related accept
//     iif lo accept
//     tcp dport 22 counter accept
//
// nothing counts, since the first rule lets the packet go; without it and the second the third would. What is
// not understood is taken to match, and to do something.
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
// After netinet/in.h, which they adapt to.
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <initializer_list>

#include "filters/inspect.h"
#include "filters/netlink.h"
#include "filters/packet.h"

namespace loopfast {

namespace {

constexpr int kMostDepth = 16;           // as many jumps as the kernel allows
constexpr uint32_t kMostRules = 50'000;  // looked at per base chain; beyond that it is "in doubt"
constexpr int kTrackingPriority = -200;  // connection tracking's place among the chains
constexpr uint16_t kArphrdLoopback = 772;
constexpr size_t kName = 200;

uint16_t message(uint16_t type) { return static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type); }

Request request_for(uint16_t type, uint16_t flags, uint8_t family) {
    const nfgenmsg body{family, NFNETLINK_V0, 0};
    return {message(type), flags, &body, sizeof body};
}

/// What became of the packet in a chain or a rule.
enum class Outcome : uint8_t {
    kGoesOn,   ///< to the next rule, or back to who jumped here
    kLeaves,   ///< this chain only: return, goto
    kEnds,     ///< accepted: this base chain is done with it
    kObjects,  ///< something was done to it
};

/// What was found out about chains or sets in this look, by their names: many rules may jump to the same
/// chain, and many look into the same set, of which each question may bring all elements. What finds no room
/// is asked again. There is one look at a time.
class Known {
public:
    void clear() { memset(entries_, 0, sizeof entries_); }
    /// A name's key; never 0.
    static uint64_t key(uint8_t family, const char* table, const char* name) {
        uint64_t hash = (0xcbf29ce484222325 ^ family) * kPrime;
        for (const char* const text : {table, name}) {
            for (const char* c = text; *c != 0; ++c)
                hash = (hash ^ static_cast<unsigned char>(*c)) * kPrime;
            hash = (hash ^ 0x100) * kPrime;  // no character
        }
        return hash | 1;
    }
    bool find(uint64_t key, uint8_t& value) const {
        const Entry& entry = entries_[key >> kShift];
        value = entry.value;
        return entry.key == key;
    }
    void put(uint64_t key, uint8_t value) { entries_[key >> kShift] = {key, value}; }

private:
    static constexpr uint64_t kPrime = 0x100000001b3;
    static constexpr unsigned kShift = 64 - 9;
    struct Entry {
        uint64_t key;
        uint8_t value;
    };
    Entry entries_[uint64_t{1} << (64 - kShift)] = {};
};

Known known_sets;    // large for a stack
Known known_chains;  // of one base chain, as what is known of the packet differs

class BaseChain {
public:
    BaseChain(const char* table, const char* chain, uint8_t family, const Place& place, Findings& findings)
        : table_(table), chain_(chain), family_(family), place_(place), findings_(findings) {
        known_chains.clear();
    }

    void judge(bool drops) {
        const Outcome outcome = walk(chain_, 0);
        if (drops && (outcome == Outcome::kGoesOn || outcome == Outcome::kLeaves))
            findings_.add(Kind::kNftables, "nftables: table %s %s, chain %s: policy drop", family_name(),
                          table_, chain_);
    }

private:
    /// A rule while its expressions are gone through.
    struct Rule {
        const char* chain;
        uint64_t handle;
        Attribute userdata;
        int depth;
        Match match = Match::kAlways;
        Bits registers;
    };

    const char* family_name() const {
        switch (family_) {
        case NFPROTO_INET:
            return "inet";
        case NFPROTO_IPV4:
            return "ip";
        case NFPROTO_IPV6:
            return "ip6";
        case NFPROTO_NETDEV:
            return "netdev";
        default:
            return "?";
        }
    }

    Outcome object(const Rule& rule, const char* what) {
        // iptables-nft and nft keep a comment in the rule's user data, as type 0 of a list of (type, size,
        // text).
        char comment[64] = "";
        const auto& data = rule.userdata;
        if (data.size > 2 && data.data[0] == 0 && data.data[1] + 2U <= data.size)
            snprintf(comment, sizeof comment, ", \"%.*s\"", static_cast<int>(data.data[1]), data.data + 2);
        findings_.add(Kind::kNftables, "nftables: table %s %s, chain %s, rule handle %llu (%s%s)",
                      family_name(), table_, rule.chain, static_cast<unsigned long long>(rule.handle), what,
                      comment);
        return Outcome::kObjects;
    }

    Outcome doubt(const char* chain, const char* what, long error) {
        if (findings_.unanswered(error))
            return Outcome::kObjects;
        findings_.add(Kind::kNftables, "nftables: table %s %s, chain %s cannot be judged (%s, error %ld)",
                      family_name(), table_, chain, what, -error);
        return Outcome::kObjects;
    }

    Outcome walk(const char* chain, int depth) {
        if (depth > kMostDepth)
            return doubt(chain, "too many jumps", 0);
        char name[kName];
        snprintf(name, sizeof name, "%s", chain);
        const uint64_t key = Known::key(family_, table_, name);
        if (uint8_t known; known_chains.find(key, known))
            return static_cast<Outcome>(known);
        Outcome outcome = Outcome::kGoesOn;
        Netlink netlink(NETLINK_NETFILTER);
        Request request = request_for(NFT_MSG_GETRULE, NLM_F_DUMP, family_);
        request.put(NFTA_RULE_TABLE, table_);
        request.put(NFTA_RULE_CHAIN, name);
        const long result = netlink.ask(request, [&](const Answer& answer) {
            if (outcome != Outcome::kGoesOn || answer.type != message(NFT_MSG_NEWRULE))
                return;
            const Attributes attributes = answer.attributes<nfgenmsg>();
            // Older kernels do not filter a dump by chain.
            if (!attributes.find(NFTA_RULE_TABLE).is(table_) || !attributes.find(NFTA_RULE_CHAIN).is(name))
                return;
            if (++rules_ > kMostRules) {
                outcome = doubt(name, "too many rules", 0);
                return;
            }
            Rule rule{name,
                      attributes.find(NFTA_RULE_HANDLE).be64(),
                      attributes.find(NFTA_RULE_USERDATA),
                      depth,
                      Match::kAlways,
                      Bits()};
            outcome = judge_rule(rule, attributes.find(NFTA_RULE_EXPRESSIONS));
        });
        if (result < 0 && outcome != Outcome::kObjects)
            return doubt(name, "its rules cannot be read", result);
        if (outcome != Outcome::kObjects)
            known_chains.put(key, static_cast<uint8_t>(outcome));
        return outcome;
    }

    Outcome judge_rule(Rule& rule, const Attribute& expressions) {
        Attributes list(expressions);
        for (Attribute element; list.next(element);) {
            const Attributes expression(element);
            const Attribute name = expression.find(NFTA_EXPR_NAME);
            const Attributes data(expression.find(NFTA_EXPR_DATA));
            const Outcome outcome = judge_expression(rule, name.text(), data);
            if (outcome != Outcome::kGoesOn)
                return outcome;
            if (rule.match == Match::kNever)
                return Outcome::kGoesOn;
        }
        return Outcome::kGoesOn;
    }

    Outcome judge_expression(Rule& rule, const char* name, const Attributes& data) {
        const auto is = [name](const char* word) { return strcmp(name, word) == 0; };
        if (is("meta")) {
            if (data.find(NFTA_META_SREG).size != 0)
                return object(rule, "meta set");
            load_meta(rule.registers, data.find(NFTA_META_KEY).be32(), place_of(data.find(NFTA_META_DREG)));
        } else if (is("payload")) {
            if (data.find(NFTA_PAYLOAD_SREG).size != 0)
                return object(rule, "payload set");
            load_payload(rule.registers, data);
        } else if (is("ct")) {
            if (data.find(NFTA_CT_SREG).size != 0)
                return object(rule, "ct set");
            const size_t at = place_of(data.find(NFTA_CT_DREG));
            rule.registers.forget(at, 16);
            if (data.find(NFTA_CT_KEY).be32() == NFT_CT_STATE && place_.tracked)
                rule.registers.set(at, &kEstablishedBit, sizeof kEstablishedBit);
        } else if (is("bitwise")) {
            combine(rule.registers, data);
        } else if (is("cmp")) {
            rule.match = both(rule.match, compare(rule.registers, data));
        } else if (is("lookup")) {
            return look_up(rule, data);
        } else if (is("immediate")) {
            return immediate(rule, data);
        } else if (is("match")) {
            const Attribute info = data.find(NFTA_MATCH_INFO);
            rule.match = both(rule.match, judge_extension(data.find(NFTA_MATCH_NAME).text(),
                                                          data.find(NFTA_MATCH_REV).be32(), info.data,
                                                          info.size, place_));
        } else if (is("target")) {
            return object(rule, data.find(NFTA_TARGET_NAME).text());
        } else if (is("range") || is("limit") || is("connlimit")) {
            rule.match = both(rule.match, Match::kMaybe);
        } else if (is("byteorder") || is("fib") || is("rt") || is("socket") || is("hash") || is("numgen") ||
                   is("osf") || is("tunnel") || is("xfrm") ||
                   (is("exthdr") && data.find(NFTA_EXTHDR_DREG).size != 0)) {
            // They load a register, or break off the rule.
            rule.registers.forget();
            rule.match = both(rule.match, Match::kMaybe);
        } else {
            return object(rule, name);  // counter, log, reject, queue, quota, dup, ..., and what is not known
        }
        return Outcome::kGoesOn;
    }

    /// Where a register lies: four of 16 bytes, or sixteen of 4.
    static size_t place_of(const Attribute& number) {
        const uint32_t reg = number.be32();
        if (reg >= NFT_REG32_00)
            return (reg - NFT_REG32_00) * 4 < Bits::kMost ? (reg - NFT_REG32_00) * 4 : Bits::kMost;
        return reg >= NFT_REG_1 && reg <= NFT_REG_4 ? (reg - NFT_REG_1) * 16 : Bits::kMost;
    }

    void load_meta(Bits& registers, uint32_t key, size_t at) const {
        const uint32_t lo = 1;
        const uint32_t none = 0;
        const auto number = [&](uint32_t value) { registers.set(at, &value, sizeof value); };
        registers.forget(at, 16);
        switch (key) {
        case NFT_META_L4PROTO:
            number(IPPROTO_TCP);
            break;
        case NFT_META_NFPROTO:
            number(place_.v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
            break;
        case NFT_META_PROTOCOL:
            number(place_.v6 ? __builtin_bswap16(ETH_P_IPV6) : __builtin_bswap16(ETH_P_IP));
            break;
        case NFT_META_IIF:
            registers.set(at, place_.incoming() ? &lo : &none, sizeof lo);
            break;
        case NFT_META_OIF:
            registers.set(at, place_.incoming() ? &none : &lo, sizeof lo);
            break;
        case NFT_META_IIFNAME:
            registers.set(at, place_.in_name(), 16);
            break;
        case NFT_META_OIFNAME:
            registers.set(at, place_.out_name(), 16);
            break;
        case NFT_META_IIFTYPE:
            if (place_.incoming())
                number(kArphrdLoopback);
            break;
        case NFT_META_OIFTYPE:
            if (!place_.incoming())
                number(kArphrdLoopback);
            break;
        default:
            break;
        }
    }

    /// The bytes of the packet that are the same in every one: the protocol, no fragment, the TCP flags.
    void load_payload(Bits& registers, const Attributes& data) const {
        const uint32_t base = data.find(NFTA_PAYLOAD_BASE).be32();
        const uint32_t offset = data.find(NFTA_PAYLOAD_OFFSET).be32();
        const uint32_t size = data.find(NFTA_PAYLOAD_LEN).be32();
        const size_t at = place_of(data.find(NFTA_PAYLOAD_DREG));
        registers.forget(at, size < 16 ? 16 : size);
        for (uint32_t i = 0; i < size && i < Bits::kMost; ++i) {
            const uint32_t byte = offset + i;
            if (base == NFT_PAYLOAD_NETWORK_HEADER && byte == (place_.v6 ? 6U : 9U))
                registers.set_byte(at + i, IPPROTO_TCP, 0xff);
            else if (base == NFT_PAYLOAD_NETWORK_HEADER && !place_.v6 && byte == 6)
                registers.set_byte(at + i, 0, 0xbf);  // all but "don't fragment"
            else if (base == NFT_PAYLOAD_NETWORK_HEADER && !place_.v6 && byte == 7)
                registers.set_byte(at + i, 0, 0xff);
            else if (base == NFT_PAYLOAD_TRANSPORT_HEADER && byte == 13)
                registers.set_byte(at + i, kTcpFlags, kKnownTcpFlags);
        }
    }

    static void combine(Bits& registers, const Attributes& data) {
        const size_t from = place_of(data.find(NFTA_BITWISE_SREG));
        const size_t to = place_of(data.find(NFTA_BITWISE_DREG));
        const uint32_t size = data.find(NFTA_BITWISE_LEN).be32();
        const Attribute mask = Attributes(data.find(NFTA_BITWISE_MASK)).find(NFTA_DATA_VALUE);
        const Attribute other = Attributes(data.find(NFTA_BITWISE_XOR)).find(NFTA_DATA_VALUE);
        if (data.find(NFTA_BITWISE_OP).be32() == NFT_BITWISE_BOOL && mask.size == size && other.size == size)
            registers.combine(from, to, mask.data, other.data, size);
        else
            registers.forget(to, size);
    }

    static Match compare(const Bits& registers, const Attributes& data) {
        const size_t at = place_of(data.find(NFTA_CMP_SREG));
        const Attribute value = Attributes(data.find(NFTA_CMP_DATA)).find(NFTA_DATA_VALUE);
        const uint32_t operation = data.find(NFTA_CMP_OP).be32();
        if (operation == NFT_CMP_EQ)
            return registers.equal(at, value.data, value.size);
        if (operation == NFT_CMP_NEQ)
            return opposite(registers.equal(at, value.data, value.size));
        if (!registers.known(at, value.size))
            return Match::kMaybe;
        const int order = memcmp(registers.value(at), value.data, value.size);
        const bool holds = operation == NFT_CMP_LT    ? order < 0
                           : operation == NFT_CMP_LTE ? order <= 0
                           : operation == NFT_CMP_GT  ? order > 0
                                                      : order >= 0;
        return holds ? Match::kAlways : Match::kNever;
    }

    Outcome immediate(Rule& rule, const Attributes& data) {
        const Attribute number = data.find(NFTA_IMMEDIATE_DREG);
        const Attributes value(data.find(NFTA_IMMEDIATE_DATA));
        if (number.be32() == NFT_REG_VERDICT)
            return verdict(rule, Attributes(value.find(NFTA_DATA_VERDICT)), rule.match);
        const Attribute bytes = value.find(NFTA_DATA_VALUE);
        rule.registers.set(place_of(number), bytes.data, bytes.size);
        return Outcome::kGoesOn;
    }

    Outcome verdict(Rule& rule, const Attributes& data, Match match) {
        const bool surely = match == Match::kAlways;
        switch (static_cast<int>(data.find(NFTA_VERDICT_CODE).be32())) {
        case NF_ACCEPT:
            return surely ? Outcome::kEnds : Outcome::kGoesOn;
        case NFT_CONTINUE:
        case NFT_BREAK:
            return Outcome::kGoesOn;
        case NFT_RETURN:
            return surely ? Outcome::kLeaves : Outcome::kGoesOn;
        case NFT_JUMP:
        case NFT_GOTO: {
            const bool jump = static_cast<int>(data.find(NFTA_VERDICT_CODE).be32()) == NFT_JUMP;
            const Outcome there = walk(data.find(NFTA_VERDICT_CHAIN).text(), rule.depth + 1);
            if (there == Outcome::kObjects || (surely && there == Outcome::kEnds))
                return there;
            return surely && !jump ? Outcome::kLeaves : Outcome::kGoesOn;
        }
        case NF_DROP:
            return object(rule, "drop");
        default:
            return object(rule, "queue");
        }
    }

    /// What an element does by itself to the packet that it is found for: it may count, or have a quota. Of a
    /// limit it is only known that it may not let the packet match.
    Outcome judge_element(const Rule& rule, const Attributes& element, Match& match) {
        const auto one = [&](const Attributes& expression) {
            const Attribute name = expression.find(NFTA_EXPR_NAME);
            if (!name.is("limit") && !name.is("connlimit"))
                return object(rule, name.text());
            match = both(match, Match::kMaybe);
            return Outcome::kGoesOn;
        };
        const Attribute only = element.find(NFTA_SET_ELEM_EXPR);
        if (only.size != 0)
            return one(Attributes(only));
        Attributes list(element.find(NFTA_SET_ELEM_EXPRESSIONS));
        Outcome outcome = Outcome::kGoesOn;
        for (Attribute expression; outcome == Outcome::kGoesOn && list.next(expression);)
            outcome = one(Attributes(expression));
        return outcome;
    }

    /// A set, or a map from values to values or verdicts.
    Outcome look_up(Rule& rule, const Attributes& data) {
        char set[kName];
        snprintf(set, sizeof set, "%s", data.find(NFTA_LOOKUP_SET).text());
        const size_t at = place_of(data.find(NFTA_LOOKUP_SREG));
        const Attribute target = data.find(NFTA_LOOKUP_DREG);
        const bool inverted = (data.find(NFTA_LOOKUP_FLAGS).be32() & NFT_LOOKUP_F_INV) != 0;
        const bool verdicts = target.size != 0 && target.be32() == NFT_REG_VERDICT;
        const auto finish = [&](Match found) {
            rule.match = both(rule.match, inverted ? opposite(found) : found);
            if (target.size != 0 && !verdicts)
                rule.registers.forget(place_of(target), 16);
        };
        // Where nothing is known of what is looked for, each time the same comes out.
        const bool same_always = !verdicts && rule.registers.unknown_from(at);
        const uint64_t key_of_set = Known::key(family_, table_, set);
        if (uint8_t known; same_always && known_sets.find(key_of_set, known)) {
            finish(static_cast<Match>(known));
            return Outcome::kGoesOn;
        }

        Netlink netlink(NETLINK_NETFILTER);
        uint32_t flags = NFT_SET_EVAL;
        Request about = request_for(NFT_MSG_GETSET, 0, family_);
        about.put(NFTA_SET_TABLE, table_);
        about.put(NFTA_SET_NAME, set);
        long result = netlink.ask(about, [&](const Answer& answer) {
            flags = answer.attributes<nfgenmsg>().find(NFTA_SET_FLAGS).be32();
        });
        // Elements that packets add may count from then on, and nobody is told when one comes.
        if (result == 0 && (flags & NFT_SET_EVAL) != 0)
            return object(rule, "dynamic set");
        // Packets themselves, or time, change the contents of some.
        const bool exact =
            (flags & (NFT_SET_INTERVAL | NFT_SET_TIMEOUT | NFT_SET_EVAL | NFT_SET_CONCAT)) == 0;

        Match found = exact ? Match::kNever : Match::kMaybe;
        Outcome outcome = Outcome::kGoesOn;
        Request elements = request_for(NFT_MSG_GETSETELEM, NLM_F_DUMP, family_);
        elements.put(NFTA_SET_ELEM_LIST_TABLE, table_);
        elements.put(NFTA_SET_ELEM_LIST_SET, set);
        const auto one = [&](const Attributes& element) {
            const Attribute key = Attributes(element.find(NFTA_SET_ELEM_KEY)).find(NFTA_DATA_VALUE);
            Match match =
                !exact || key.size == 0 ? Match::kMaybe : rule.registers.equal(at, key.data, key.size);
            if (match == Match::kNever || found == Match::kAlways || outcome != Outcome::kGoesOn)
                return;
            outcome = judge_element(rule, element, match);
            if (outcome != Outcome::kGoesOn)
                return;
            found = match > found ? match : found;
            const Attributes value(element.find(NFTA_SET_ELEM_DATA));
            if (verdicts && value.find(NFTA_DATA_VERDICT).size != 0)
                outcome = verdict(rule, Attributes(value.find(NFTA_DATA_VERDICT)), both(rule.match, match));
        };
        if (result == 0)
            result = netlink.ask(elements, [&](const Answer& answer) {
                Attributes list(answer.attributes<nfgenmsg>().find(NFTA_SET_ELEM_LIST_ELEMENTS));
                for (Attribute element; list.next(element);)
                    one(Attributes(element));
            });
        if (result < 0 && outcome != Outcome::kObjects) {
            // A set that changes all the time can hardly be read to its end; each change makes us look again.
            if (verdicts || result != -EINTR)
                return doubt(rule.chain, verdicts ? "a map cannot be read" : "a set cannot be read", result);
            found = Match::kMaybe;
        }
        finish(found);
        if (same_always && result == 0 && outcome == Outcome::kGoesOn)
            known_sets.put(key_of_set, static_cast<uint8_t>(found));
        return outcome;
    }

    const char* table_;
    const char* chain_;
    uint8_t family_;
    Place place_;
    Findings& findings_;
    uint32_t rules_ = 0;
};

bool dormant(uint8_t family, const char* table, Findings& findings) {
    Netlink netlink(NETLINK_NETFILTER);
    Request request = request_for(NFT_MSG_GETTABLE, 0, family);
    request.put(NFTA_TABLE_NAME, table);
    uint32_t flags = 0;
    findings.unanswered(netlink.ask(request, [&](const Answer& answer) {
        flags = answer.attributes<nfgenmsg>().find(NFTA_TABLE_FLAGS).be32();
    }));
    return (flags & NFT_TABLE_F_DORMANT) != 0;
}

/// Whether a chain of one or more devices has lo among them; one that names none in a way known here may.
bool on_lo(const Attributes& hook, const LoName& lo) {
    const Attribute device = hook.find(NFTA_HOOK_DEV);
    if (device.size != 0)
        return device.is(lo.text);
    const Attribute several = hook.find(NFTA_HOOK_DEVS);
    Attributes list(several);
    bool any = false;
    for (Attribute one; list.next(one); any = true)
        if (one.type != NFTA_DEVICE_NAME || one.is(lo.text))
            return true;
    return !any;
}

void judge_chain(const Attributes& chain, uint8_t family, const LoName& lo, Findings& findings) {
    const Attribute hook = chain.find(NFTA_CHAIN_HOOK);
    if (hook.size == 0)
        return;  // not a base chain
    const Attributes place(hook);
    const uint32_t number = place.find(NFTA_HOOK_HOOKNUM).be32();
    const auto priority = static_cast<int>(place.find(NFTA_HOOK_PRIORITY).be32());
    const char* const table = chain.find(NFTA_CHAIN_TABLE).text();
    const bool of_device = family == NFPROTO_NETDEV || (family == NFPROTO_INET && number == NF_INET_INGRESS);
    if (family != NFPROTO_INET && family != NFPROTO_IPV4 && family != NFPROTO_IPV6 &&
        family != NFPROTO_NETDEV)
        return;
    // A packet of lo is never forwarded; a NAT chain sees the first packet of a connection only.
    if (of_device ? !on_lo(place, lo) : number == NF_INET_FORWARD || chain.find(NFTA_CHAIN_TYPE).is("nat"))
        return;
    if (dormant(family, table, findings))
        return;
    const bool drops =
        chain.find(NFTA_CHAIN_POLICY).size != 0 && chain.find(NFTA_CHAIN_POLICY).be32() == NF_DROP;
    // Of a device's two hooks the first is ingress, the second egress.
    const Hook where = !of_device                                               ? static_cast<Hook>(number)
                       : family == NFPROTO_NETDEV && number == NF_NETDEV_EGRESS ? Hook::kPostrouting
                                                                                : Hook::kIngress;
    const uint32_t before = findings.count;
    for (const bool v6 : {false, true}) {
        if ((family == NFPROTO_IPV4 && v6) || (family == NFPROTO_IPV6 && !v6) || findings.count != before)
            continue;
        BaseChain(table, chain.find(NFTA_CHAIN_NAME).text(), family,
                  Place{where, v6, !of_device && priority > kTrackingPriority, lo}, findings)
            .judge(drops);
    }
}

}  // namespace

Sight inspect_nftables(Findings& findings, const LoName& lo) {
    constexpr int kAttempts = 5;  // a dump that is overtaken by a change begins again
    for (int attempt = 0;; ++attempt) {
        Netlink netlink(NETLINK_NETFILTER);
        Request request = request_for(NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_UNSPEC);
        Findings found;
        known_sets.clear();
        const long result = netlink.ask(request, [&](const Answer& answer) {
            if (answer.type == message(NFT_MSG_NEWCHAIN))
                judge_chain(answer.attributes<nfgenmsg>(), answer.header<nfgenmsg>().nfgen_family, lo, found);
        });
        if (result == -EINTR && attempt < kAttempts)
            continue;
        if (result == -EPERM || result == -EACCES)
            return Sight::kNotPermitted;
        if (result == -EPROTONOSUPPORT || result == -EAFNOSUPPORT || result == -EINVAL ||
            result == -EOPNOTSUPP)
            return Sight::kNotThere;
        if (result < 0 && !found.unanswered(result))
            found.add(Kind::kNftables, "nftables: the rules cannot be read (error %ld)", -result);
        findings.append(found);
        return Sight::kSeen;
    }
}

Sight nftables_generation(Findings& findings, uint64_t& generation) {
    Netlink netlink(NETLINK_NETFILTER);
    Request request = request_for(NFT_MSG_GETGEN, 0, NFPROTO_UNSPEC);
    generation = 0;
    const long result = netlink.ask(request, [&](const Answer& answer) {
        generation = uint64_t{1} << 32 | answer.attributes<nfgenmsg>().find(NFTA_GEN_ID).be32();
    });
    findings.unanswered(result);
    return result == 0                             ? Sight::kSeen
           : result == -EPERM || result == -EACCES ? Sight::kNotPermitted
                                                   : Sight::kNotThere;
}

}  // namespace loopfast
