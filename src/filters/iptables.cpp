// The legacy tables of iptables and ip6tables, taken from the kernel as the tools take them. Every rule of
// theirs counts bytes, whatever else it does; so each that may match an established connection over lo is an
// objection, unless it stands where only new connections come by (the nat table). A chain's policy is not: a
// table whose chains are empty and let everything pass is what is left after somebody looked at it.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
// After netinet/in.h, which they adapt to.
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>

#include "base/syscall.h"
#include "filters/inspect.h"
#include "filters/packet.h"

namespace loopfast {

namespace {

constexpr const char* kChains[] = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"};

/// What differs between the two families.
struct V4 {
    static constexpr int kFamily = AF_INET, kLevel = IPPROTO_IP;
    static constexpr int kGetInfo = IPT_SO_GET_INFO, kGetEntries = IPT_SO_GET_ENTRIES;
    static constexpr bool kV6 = false;
    static constexpr const char* kNames = "/proc/net/ip_tables_names";
    static constexpr const char* kTool = "iptables";
    using Info = ipt_getinfo;
    using Entries = ipt_get_entries;
    using Entry = ipt_entry;
    static Match header(const ipt_entry& entry) {
        const ipt_ip& ip = entry.ip;
        Match match = both(ip.smsk.s_addr == 0 ? Match::kAlways : Match::kMaybe,
                           ip.dmsk.s_addr == 0 ? Match::kAlways : Match::kMaybe);
        if ((ip.flags & IPT_F_FRAG) != 0)
            match = both(match, (ip.invflags & IPT_INV_FRAG) != 0 ? Match::kAlways : Match::kNever);
        return match;
    }
    static const auto& ip(const ipt_entry& entry) { return entry.ip; }
};

struct V6 {
    static constexpr int kFamily = AF_INET6, kLevel = IPPROTO_IPV6;
    static constexpr int kGetInfo = IP6T_SO_GET_INFO, kGetEntries = IP6T_SO_GET_ENTRIES;
    static constexpr bool kV6 = true;
    static constexpr const char* kNames = "/proc/net/ip6_tables_names";
    static constexpr const char* kTool = "ip6tables";
    using Info = ip6t_getinfo;
    using Entries = ip6t_get_entries;
    using Entry = ip6t_entry;
    static Match header(const ip6t_entry& entry) {
        const in6_addr none{};
        return memcmp(&entry.ipv6.smsk, &none, sizeof none) == 0 &&
                       memcmp(&entry.ipv6.dmsk, &none, sizeof none) == 0
                   ? Match::kAlways
                   : Match::kMaybe;
    }
    static const auto& ip(const ip6t_entry& entry) { return entry.ipv6; }
};

Match judge_interface(const char* wanted, const unsigned char* mask, const char* name, bool inverted) {
    bool equal = true;
    for (int i = 0; i < IFNAMSIZ; ++i)
        equal = equal && ((static_cast<unsigned char>(wanted[i]) ^ static_cast<unsigned char>(name[i])) &
                          mask[i]) == 0;
    return equal != inverted ? Match::kAlways : Match::kNever;
}

/// A part of the blob, or null where it would reach beyond it.
template <typename T> const T* at(const unsigned char* blob, size_t size, size_t offset) {
    return offset <= size && size - offset >= sizeof(T) ? reinterpret_cast<const T*>(blob + offset) : nullptr;
}

template <typename Family>
Match judge_rule(const unsigned char* blob, size_t size, size_t offset, const typename Family::Entry& entry,
                 const Place& place) {
    const auto& ip = Family::ip(entry);
    Match match = Family::header(entry);
    match = both(match, judge_interface(ip.iniface, ip.iniface_mask, place.in_name(),
                                        (ip.invflags & IPT_INV_VIA_IN) != 0));
    match = both(match, judge_interface(ip.outiface, ip.outiface_mask, place.out_name(),
                                        (ip.invflags & IPT_INV_VIA_OUT) != 0));
    if (ip.proto != 0)
        match = both(match, (ip.proto == IPPROTO_TCP) == ((ip.invflags & XT_INV_PROTO) == 0) ? Match::kAlways
                                                                                             : Match::kNever);
    for (size_t next = offset + sizeof(entry); next < offset + entry.target_offset;) {
        const auto* const extension = at<xt_entry_match>(blob, size, next);
        if (extension == nullptr || extension->u.match_size < sizeof *extension ||
            next + extension->u.match_size > size)
            return Match::kMaybe;
        char name[XT_EXTENSION_MAXNAMELEN + 1] = {};
        memcpy(name, extension->u.user.name, XT_EXTENSION_MAXNAMELEN);
        match = both(match, judge_extension(name, extension->u.user.revision, extension->data,
                                            extension->u.match_size - sizeof *extension, place));
        next += extension->u.match_size;
    }
    return match;
}

template <typename Family>
void judge_table(const char* table, const unsigned char* blob, size_t size, const typename Family::Info& info,
                 const LoName& lo, Findings& findings) {
    for (uint32_t hook = 0; hook < NF_INET_NUMHOOKS; ++hook) {
        if ((info.valid_hooks & 1U << hook) == 0 || hook == NF_INET_FORWARD)
            continue;
        // The raw table comes before connection tracking.
        const Place place{static_cast<Hook>(hook), Family::kV6, strcmp(table, "raw") != 0, lo};
        size_t offset = info.hook_entry[hook];
        for (uint32_t number = 1; offset < info.underflow[hook]; ++number) {
            const auto* const entry = at<typename Family::Entry>(blob, size, offset);
            if (entry == nullptr || entry->next_offset < sizeof *entry)
                break;
            if (judge_rule<Family>(blob, size, offset, *entry, place) != Match::kNever) {
                findings.add(Kind::kIptables, "%s (legacy): table %s, chain %s, rule %u", Family::kTool,
                             table, kChains[hook], number);
                break;
            }
            offset += entry->next_offset;
        }
        const auto* const policy = at<typename Family::Entry>(blob, size, info.underflow[hook]);
        const auto* const target =
            policy == nullptr
                ? nullptr
                : at<xt_standard_target>(blob, size, info.underflow[hook] + policy->target_offset);
        if (target != nullptr && target->verdict == -NF_DROP - 1)
            findings.add(Kind::kIptables, "%s (legacy): table %s, chain %s: policy DROP", Family::kTool,
                         table, kChains[hook]);
    }
}

/// @return 0, or -errno: -EAGAIN when the table was changed between the two questions.
template <typename Family> long ask_table(int fd, const char* table, const LoName& lo, Findings& findings) {
    typename Family::Info info{};
    snprintf(info.name, sizeof info.name, "%.31s", table);
    socklen_t length = sizeof info;
    long result = sys::getsockopt(fd, Family::kLevel, Family::kGetInfo, &info, &length);
    if (result < 0)
        return result;
    const size_t all = sizeof(typename Family::Entries) + info.size;
    void* const memory = sys::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sys::mmap_failed(memory))
        return -ENOMEM;
    auto* const entries = static_cast<typename Family::Entries*>(memory);
    snprintf(entries->name, sizeof entries->name, "%.31s", table);
    entries->size = info.size;
    length = static_cast<socklen_t>(all);
    result = sys::getsockopt(fd, Family::kLevel, Family::kGetEntries, entries, &length);
    if (result == 0)
        judge_table<Family>(table, reinterpret_cast<const unsigned char*>(entries->entrytable), info.size,
                            info, lo, findings);
    sys::munmap(memory, all);
    return result;
}

template <typename Family> Sight ask_family(const LoName& lo, Findings& findings) {
    // A question about a table that nobody has used would make it. These are the ones that there are.
    char names[512] = {};
    const long file = sys::call(SYS_openat, AT_FDCWD, sys::word(Family::kNames), O_RDONLY | O_CLOEXEC);
    findings.unanswered(file);
    if (file < 0)
        return file == -EACCES || file == -EPERM ? Sight::kNotPermitted : Sight::kNotThere;
    const long size = sys::read(static_cast<int>(file), names, sizeof names - 1);
    sys::close(static_cast<int>(file));
    findings.unanswered(size);
    if (size <= 0)
        return size == 0 ? Sight::kSeen : Sight::kNotPermitted;
    const int fd = sys::socket(Family::kFamily, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    findings.unanswered(fd);
    if (fd < 0)
        return Sight::kNotPermitted;
    Sight sight = Sight::kSeen;
    for (char *name = names, *end = nullptr; (end = strchr(name, '\n')) != nullptr; name = end + 1) {
        *end = 0;
        if (strcmp(name, "nat") == 0)
            continue;
        long result = -EAGAIN;
        for (int attempt = 0; attempt < 5 && result == -EAGAIN; ++attempt)
            result = ask_table<Family>(fd, name, lo, findings);
        if (result == -EPERM)
            sight = Sight::kNotPermitted;
        else if (result < 0 && result != -ENOENT && !findings.unanswered(result))  // ENOENT: gone meanwhile
            findings.add(Kind::kIptables, "%s (legacy): table %s cannot be read (error %ld)", Family::kTool,
                         name, -result);
    }
    sys::close(fd);
    return sight;
}

}  // namespace

Sight inspect_iptables(Findings& findings, const LoName& lo) {
    const Sight v4 = ask_family<V4>(lo, findings);
    const Sight v6 = ask_family<V6>(lo, findings);
    return v4 == Sight::kNotPermitted || v6 == Sight::kNotPermitted ? Sight::kNotPermitted
           : v4 == Sight::kNotThere && v6 == Sight::kNotThere       ? Sight::kNotThere
                                                                    : Sight::kSeen;
}

}  // namespace loopfast
