// See watcher.h.
#include "guard/watcher.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/clock.h"
#include "filters/inspect.h"

namespace loopfast::guard {

namespace {

constexpr int64_t kMillisecond = 1'000'000;
/// Where there are notifications, in case one was lost.
constexpr int64_t kToBeSure = 5'000 * kMillisecond;
constexpr int64_t kCaptures = 20 * kMillisecond;
constexpr int64_t kPoll = 50 * kMillisecond;
/// A look may take one part in so many of the time.
constexpr int64_t kOneIn = 100;
/// But it is never put off for longer, whatever it costs.
constexpr int64_t kMostBetween = 500 * kMillisecond;
/// Between two times that streams are made ask for their way. Routes to elsewhere may come and go all the
/// time.
constexpr int64_t kWays = 20 * kMillisecond;
constexpr int64_t kDistantWays = 1'000 * kMillisecond;
/// Removed control groups that are kept in mind.
constexpr size_t kMostRemoved = 1'000;
/// The place of nftables among the subjects.
constexpr size_t kRules = 1;
/// After a look for which memory or descriptors did not suffice; and how long the one before it holds.
constexpr int64_t kAgain = 20 * kMillisecond;
constexpr int64_t kMostIncomplete = 2'000 * kMillisecond;

int subscribe(int protocol, const std::vector<int>& groups) {
    const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd < 0)
        return -1;
    // A socket without a number of its own would be taken for the sender, and left out.
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        close(fd);
        return -1;
    }
    for (const int group : groups)
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
            close(fd);
            return -1;
        }
    return fd;
}

/// What it says does not matter: everything is asked anew. An overflow means the same.
void drain(int fd) {
    char buffer[8192];
    while (recv(fd, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC) >= 0 || errno == ENOBUFS) {
    }
}

/// Reads notices of changed addresses, routes and rules. @return how soon streams are to ask again.
int64_t drain_ways(int fd) {
    alignas(nlmsghdr) unsigned char buffer[8192];
    int64_t soon = kDistantWays;
    for (;;) {
        const ssize_t size = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (size < 0 && errno != ENOBUFS)
            return soon;
        const auto* const header = reinterpret_cast<const nlmsghdr*>(buffer);
        const auto* const route = static_cast<const rtmsg*>(NLMSG_DATA(header));
        const bool distant = size >= static_cast<ssize_t>(NLMSG_LENGTH(sizeof *route)) &&
                             (header->nlmsg_type == RTM_NEWROUTE || header->nlmsg_type == RTM_DELROUTE) &&
                             route->rtm_type == RTN_UNICAST && route->rtm_table != RT_TABLE_LOCAL;
        if (!distant)
            soon = kWays;
    }
}

/// The unified hierarchy, or an empty string.
std::string cgroup_root() {
    for (const char* const path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
        struct statfs system {};
        if (statfs(path, &system) == 0 && system.f_type == CGROUP2_SUPER_MAGIC)
            return path;
    }
    // Mounted elsewhere: device, place, type, ...
    std::ifstream mounts("/proc/self/mounts");
    for (std::string device, place, type, rest; mounts >> device >> place >> type && getline(mounts, rest);)
        if (type == "cgroup2")
            return place;
    return "";
}

/// Visits a group and all below it. @return whether the kernel told.
template <typename Visit> Sight walk(int parent, const std::string& path, Findings& findings, Visit visit) {
    const int directory = openat(parent, path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) {
        findings.unanswered(-errno);
        return Sight::kSeen;  // or it went away meanwhile
    }
    Sight sight = visit(directory, path);
    errno = 0;
    DIR* const list = sight == Sight::kSeen ? fdopendir(dup(directory)) : nullptr;
    if (list == nullptr && sight == Sight::kSeen)
        findings.unanswered(errno == EBADF ? -EMFILE : -errno);
    if (list != nullptr) {
        while (const dirent* const entry = readdir(list)) {
            if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                continue;
            // Bounded by the depth that the hierarchy has.
            if (walk(directory, entry->d_name, findings, visit) == Sight::kNotPermitted)
                sight = Sight::kNotPermitted;
        }
        closedir(list);
    }
    close(directory);
    return sight;
}

}  // namespace

Watcher::Watcher()
    : subjects_{{
          {Kind::kCapture, &Watcher::ask_captures, kCaptures},
          {Kind::kNftables, &Watcher::ask_nftables, kToBeSure,
           subscribe(NETLINK_NETFILTER, {NFNLGRP_NFTABLES})},
          {Kind::kIptables, &Watcher::ask_iptables, kPoll},
          {Kind::kTrafficControl, &Watcher::ask_traffic_control, kToBeSure,
           subscribe(NETLINK_ROUTE, {RTNLGRP_TC})},
          {Kind::kXdp, &Watcher::ask_programs, kPoll, subscribe(NETLINK_ROUTE, {RTNLGRP_LINK})},
          {Kind::kIpsec, &Watcher::ask_ipsec, kToBeSure, subscribe(NETLINK_XFRM, {XFRMNLGRP_POLICY})},
          {Kind::kCgroup, &Watcher::ask_cgroups, kPoll},
      }} {
    ways_notifier_ = subscribe(NETLINK_ROUTE, {RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE,
                                               RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE});
    // Where one may not subscribe, it is a matter of turns as well.
    for (Subject& subject : subjects_)
        if (subject.notifier < 0 && subject.between == kToBeSure)
            subject.between = kPoll;
}

Watcher::~Watcher() {
    for (const Subject& subject : subjects_)
        if (subject.notifier >= 0)
            close(subject.notifier);
    for (const int fd : {captures_, ways_notifier_})
        if (fd >= 0)
            close(fd);
}

std::vector<pollfd> Watcher::sources() const {
    std::vector<pollfd> all;
    for (const Subject& subject : subjects_)
        if (subject.notifier >= 0)
            all.push_back({subject.notifier, POLLIN, 0});
    if (ways_notifier_ >= 0)
        all.push_back({ways_notifier_, POLLIN, 0});
    return all;
}

void Watcher::note_ways(int64_t now) {
    ways_due_ = std::min(ways_due_, std::max(now, ways_told_ + drain_ways(ways_notifier_)));
}

void Watcher::look(const std::vector<pollfd>& events) {
    const int64_t now = now_ns();
    for (const pollfd& event : events)
        if (event.fd == ways_notifier_ && event.revents != 0)
            note_ways(now);
    if (now >= ways_due_) {
        ++ways_;
        ways_told_ = now;
        ways_due_ = INT64_MAX;
    }
    for (Subject& subject : subjects_) {
        const bool notified = std::any_of(events.begin(), events.end(), [&](const pollfd& event) {
            return event.fd == subject.notifier && event.revents != 0;
        });
        // Before the question: what changes after it notifies again.
        if (notified)
            drain(subject.notifier);
        // Rules name lo, and it may have got another name.
        if (notified && subject.kind == Kind::kXdp)
            subjects_[kRules].due = 0;
        if (notified || now >= subject.due)
            ask(subject);
    }
}

void Watcher::ask(Subject& subject) {
    const int64_t begin = thread_time_ns();
    Findings findings;
    const Sight sight = (this->*subject.ask)(findings);
    const int64_t now = now_ns();
    if (findings.incomplete && !findings.any()) {
        // No memory or descriptors to look: what was seen the last time holds for a while, then it is in
        // doubt.
        if (subject.incomplete_since == 0)
            subject.incomplete_since = now;
        subject.due = now + kAgain;
        if (subject.known && now - subject.incomplete_since < kMostIncomplete)
            return;
        findings.add(subject.kind, "%s: the guard has no memory or descriptors to look",
                     kind_name(subject.kind));
        subject.findings = findings;
        return;
    }
    subject.incomplete_since = 0;
    subject.known = true;
    subject.sight = sight;
    const int64_t cost = thread_time_ns() - begin;
    subject.due = now + std::max(subject.between, std::min(cost * kOneIn, kMostBetween));
    // Not a part of the cost, or the next capture would be seen late: each is named once.
    if (subject.kind == Kind::kCapture)
        name_captures(findings, false);
    subject.findings = findings;
}

int64_t Watcher::until_due() const {
    int64_t first = ways_due_;
    for (const Subject& subject : subjects_)
        first = std::min(first, subject.due);
    return std::max<int64_t>(0, first - now_ns());
}

State Watcher::state() const {
    State state;
    for (const Subject& subject : subjects_) {
        state.everywhere.append(subject.findings);
        if (subject.sight == Sight::kNotPermitted)
            state.unseen |= 1U << static_cast<uint32_t>(subject.kind);
    }
    state.ways = ways_;
    state.cgroups = cgroups_;
    state.cgroup_objection = cgroup_objection_;
    return state;
}

Sight Watcher::ask_captures(Findings& findings) {
    if (captures_ < 0)
        captures_ = open_captures();
    if (captures_ >= 0)
        return inspect_captures(captures_, findings);
    findings.unanswered(captures_);
    return Sight::kNotPermitted;
}

Sight Watcher::ask_nftables(Findings& findings) {
    // Large rulesets take a while. "To be sure" it is enough that none of them has changed.
    const LoName lo = name_of_lo(findings);
    uint64_t generation = 0;
    nftables_generation(findings, generation);
    if (generation == 0 || generation != rules_generation_ ||
        memcmp(rules_lo_.text, lo.text, sizeof lo.text) != 0) {
        rules_.clear();
        rules_sight_ = inspect_nftables(rules_, lo);
        rules_generation_ = rules_.incomplete ? 0 : generation;
        rules_lo_ = lo;
    }
    findings.append(rules_);
    return rules_sight_;
}
Sight Watcher::ask_iptables(Findings& findings) { return inspect_iptables(findings, name_of_lo(findings)); }
Sight Watcher::ask_traffic_control(Findings& findings) { return inspect_traffic_control(findings); }
Sight Watcher::ask_programs(Findings& findings) {
    inspect_raw_sockets(findings);
    return inspect_lo_programs(findings, true);
}
Sight Watcher::ask_ipsec(Findings& findings) { return inspect_ipsec(findings); }

/// A group that is removed keeps its programs as long as it has sockets, but cannot be looked at any more.
void Watcher::note_removed(const std::string& root, const std::vector<uint64_t>& groups) {
    int directory = -1;
    for (const uint64_t number : cgroups_) {
        if (std::binary_search(groups.begin(), groups.end(), number) ||
            std::binary_search(removed_.begin(), removed_.end(), number))
            continue;
        if (directory < 0)
            directory = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const int group = open_cgroup(directory, number);
        if (group >= 0)
            close(group);
        else if (group == -ESTALE)
            removed_.insert(std::upper_bound(removed_.begin(), removed_.end(), number), number);
    }
    if (directory >= 0)
        close(directory);
    // Numbers are not used again, and the lowest are the oldest.
    if (removed_.size() > kMostRemoved)
        removed_.erase(removed_.begin(), removed_.end() - kMostRemoved);
}

Sight Watcher::ask_cgroups(Findings& findings) {
    std::vector<uint64_t> groups;
    Objection objection{};
    const std::string root = cgroup_root();
    if (root.empty())
        return Sight::kNotThere;
    const Sight sight = walk(AT_FDCWD, root, findings, [&](int directory, const std::string& name) {
        Findings found;
        const Sight seen = inspect_cgroup(directory, name.c_str(), found);
        findings.incomplete = findings.incomplete || found.incomplete;
        if (!found.any())
            return seen;
        if (name == root) {
            // In effect in all groups: no list is needed, and none of the others has to be asked.
            findings.append(found);
            return Sight::kNotThere;
        }
        struct stat status {};
        // A group's number is its directory's.
        if (fstat(directory, &status) == 0)
            groups.push_back(status.st_ino);
        if (objection.kind == Kind::kNone)
            objection = found.list[0];
        return seen;
    });
    if (!findings.incomplete) {
        std::sort(groups.begin(), groups.end());
        note_removed(root, groups);
        groups.insert(groups.end(), removed_.begin(), removed_.end());
        std::sort(groups.begin(), groups.end());
        cgroups_ = std::move(groups);
        if (objection.kind != Kind::kNone || cgroups_.empty())
            cgroup_objection_ = objection;
    }
    return sight == Sight::kNotPermitted ? sight : Sight::kSeen;
}

State look_once() {
    Watcher watcher;
    watcher.look({});
    State state = watcher.state();
    name_captures(state.everywhere, true);
    return state;
}

namespace {

/// Processes that hold a socket, as "tcpdump[123]", or an empty string.
std::string holder_of(unsigned long inode) {
    const std::string wanted = fmt::format("socket:[{}]", inode);
    std::string found;
    DIR* const proc = opendir("/proc");
    if (proc == nullptr)
        return found;
    while (const dirent* const process = readdir(proc)) {
        if (process->d_name[0] < '0' || process->d_name[0] > '9')
            continue;
        const std::string folder = fmt::format("/proc/{}/fd", process->d_name);
        DIR* const descriptors = opendir(folder.c_str());
        if (descriptors == nullptr)
            continue;
        while (const dirent* const descriptor = readdir(descriptors)) {
            char target[64];
            const ssize_t size = readlinkat(dirfd(descriptors), descriptor->d_name, target, sizeof target);
            if (size < 0 || wanted != std::string_view(target, static_cast<size_t>(size)))
                continue;
            std::ifstream comm(fmt::format("/proc/{}/comm", process->d_name));
            std::string name;
            std::getline(comm, name);
            found = fmt::format("{}[{}]", name, process->d_name);
            break;
        }
        closedir(descriptors);
        if (!found.empty())
            break;
    }
    closedir(proc);
    return found;
}

}  // namespace

void name_captures(Findings& findings, bool at_once) {
    // To be found in all processes' descriptors, which takes its time: at the second look, when the capture
    // has been published. A number is not used again while its socket lives, so once is enough.
    static std::map<unsigned long, std::string> known;
    static std::set<unsigned long> seen;
    if (findings.count == 0) {
        known.clear();
        seen.clear();
        return;
    }
    for (uint32_t i = 0; i < findings.count; ++i) {
        Objection& objection = findings.list[i];
        constexpr std::string_view kBefore = "capture: packet socket ";
        const std::string text = objection.text;
        const size_t on = text.find(" on ");
        if (objection.kind != Kind::kCapture || text.rfind(kBefore, 0) != 0 || on == std::string::npos)
            continue;
        const unsigned long inode = strtoul(text.c_str() + kBefore.size(), nullptr, 10);
        const std::string rest = text.substr(on + 4);
        if (!at_once && seen.insert(inode).second)
            continue;
        auto place = known.find(inode);
        if (place == known.end())
            place = known.emplace(inode, holder_of(inode)).first;
        if (place->second.empty())
            continue;
        memset(objection.text, 0, sizeof objection.text);
        snprintf(objection.text, sizeof objection.text, "capture: %s on %s (packet socket %lu)",
                 place->second.c_str(), rest.c_str(), inode);
    }
}

}  // namespace loopfast::guard
