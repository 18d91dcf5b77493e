// What the guard looks at, and when: at once where the kernel notifies (nftables, tc, links, IPsec), in short
// turns where it does not (packet sockets, legacy iptables, programs of lo and of control groups). A look
// that takes long is repeated less often, so that all of it together stays below a few hundredths of a
// processor.
#pragma once

#include <poll.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "filters/inspect.h"
#include "guard/publisher.h"

namespace loopfast::guard {

class Watcher {
public:
    Watcher();
    ~Watcher();
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;

    /// Descriptors that are readable when something has changed.
    std::vector<pollfd> sources() const;
    /// Looks at all that is due, `events` being what poll said of sources().
    void look(const std::vector<pollfd>& events);
    /// Nanoseconds until the next look is due.
    int64_t until_due() const;
    /// What is known now.
    State state() const;

private:
    /// One facility, or several that are asked together.
    struct Subject {
        Kind kind;
        Sight (Watcher::*ask)(Findings&);
        int64_t between;  ///< nanoseconds between two looks
        int notifier = -1;
        int64_t due = 0;
        Sight sight = Sight::kSeen;
        Findings findings{};
        bool known = false;            ///< a look was completed
        int64_t incomplete_since = 0;  ///< the first look of those that could not be completed; else 0
    };

    Sight ask_captures(Findings& findings);
    Sight ask_nftables(Findings& findings);
    Sight ask_iptables(Findings& findings);
    Sight ask_traffic_control(Findings& findings);
    Sight ask_programs(Findings& findings);
    Sight ask_ipsec(Findings& findings);
    Sight ask_cgroups(Findings& findings);
    void ask(Subject& subject);
    void note_ways(int64_t now);
    void note_removed(const std::string& root, const std::vector<uint64_t>& groups);

    /// Told of addresses, routes and routing rules. What they lead to is each connection's own question.
    int ways_notifier_ = -1;
    uint64_t ways_ = 0;  ///< counts the changes that are told of
    int64_t ways_told_ = 0;
    int64_t ways_due_ = INT64_MAX;  ///< when the next one is to be told of

    std::array<Subject, 7> subjects_;
    int captures_ = -1;
    /// What the rules were found to be, and under which number of theirs and name of lo; 0: it does not hold.
    Findings rules_;
    Sight rules_sight_ = Sight::kSeen;
    uint64_t rules_generation_ = 0;
    LoName rules_lo_;
    /// Groups that were removed while they were forbidden, in ascending order: they last as long as their
    /// sockets.
    std::vector<uint64_t> removed_;
    std::vector<uint64_t> cgroups_;
    Objection cgroup_objection_{};
};

/// Everything once, for `loopfast doctor`.
State look_once();

/// Replaces the socket in a capture's text by the name of who holds it, as far as /proc shows it.
/// That takes a while: unless `at_once`, a capture keeps its number the first time that it is seen.
void name_captures(Findings& findings, bool at_once);

}  // namespace loopfast::guard
