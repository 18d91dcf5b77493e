// What the guard looks at, and when: at once where the kernel notifies (nftables, tc, links, IPsec), in short
// turns where it does not (packet sockets, legacy iptables, programs of lo and of control groups). A look
// that takes long is repeated less often, so that all of it together stays below a few hundredths of a
// processor.
#pragma once

#include <poll.h>

#include <array>
#include <cstdint>
#include <vector>

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

    std::array<Subject, 7> subjects_;
    int captures_ = -1;
    std::vector<uint64_t> cgroups_;
    Objection cgroup_objection_{};
};

/// Everything once, for `loopfast doctor`.
State look_once();

/// Replaces the socket in a capture's text by the name of who holds it, as far as /proc shows it.
/// That takes a while: unless `at_once`, a capture keeps its number the first time that it is seen.
void name_captures(Findings& findings, bool at_once);

}  // namespace loopfast::guard
