// Epoll sets, pipes, and waits for several descriptors, as subjects of a script. Ready descriptors are shown
// by name and in the order of their names: the order in which a wait reports them is not promised.
#pragma once

#include <sys/epoll.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "end.h"

namespace differential {

class EpollSet {
public:
    EpollSet(Script& script, Actor actor, const std::string& name);

    /// The set's own descriptor, for nesting, poll, dup and close.
    const End& end() const { return end_; }

    Outcome add(const End& end, unsigned events) { return control(EPOLL_CTL_ADD, "add", end, events); }
    Outcome modify(const End& end, unsigned events) { return control(EPOLL_CTL_MOD, "mod", end, events); }
    Outcome remove(const End& end) { return control(EPOLL_CTL_DEL, "del", end, 0); }
    Outcome wait(int timeout = 0, int most = 16) const;
    Outcome pwait(int timeout, const sigset_t* mask) const;
    Outcome pwait2(long nanoseconds) const;
    Pending start_wait(int timeout = -1) const;
    /// Waits until a look at what is ready shows this name; for level-triggered interest only.
    void await_ready(const End& end) const;

private:
    Outcome control(int operation, const char* name, const End& end, unsigned events);
    void describe(long found, const epoll_event* events, Outcome& outcome) const;

    End end_;
    std::map<uint64_t, std::string> names_;
};

/// A pipe's two ends: {reading, writing}.
std::pair<End, End> make_pipe(Script& script, Actor actor, const std::string& name);

/// One poll or select of several ends of one process.
enum class Selector { kPoll, kPpoll, kSelect, kPselect };
struct Interest {
    End end;
    short events;
};
Outcome wait_for(Selector selector, const std::vector<Interest>& interests, int timeout = 0);
Pending start_wait_for(Selector selector, const std::vector<Interest>& interests, int timeout = -1);

}  // namespace differential
