// The guard's side of its page (policy/guard_page.h): makes it, hands it out, changes it, and leaves it in
// such a state that everybody knows when the guard is gone.
#pragma once

#include <linux/futex.h>

#include <cstdint>
#include <string>
#include <vector>

#include "policy/guard_page.h"

namespace loopfast::guard {

/// What there is to say.
struct State {
    Findings everywhere;            ///< objections for the whole namespace
    std::vector<uint64_t> cgroups;  ///< groups that are forbidden, in ascending order
    Objection cgroup_objection{};   ///< what forbids one of them
    uint64_t ways = 0;              ///< counts changes of addresses, routes and routing rules
    uint32_t unseen = 0;            ///< a bit for each Kind that could not be asked about

    bool same_as(const State& other) const;
    /// The same objections, though there may have been changes of the ways.
    bool says_the_same_as(const State& other) const;
};

class Publisher {
public:
    /// Throws Failure when another guard is at work in this network namespace, or nothing can be published.
    Publisher();
    ~Publisher();
    Publisher(const Publisher&) = delete;
    Publisher& operator=(const Publisher&) = delete;

    void publish(const State& state);
    /// The guard is awake.
    void beat();
    /// Readable when somebody asks for the page; then answer(). -1: not to be asked now.
    int listener() const;
    void answer();
    /// What is not as it should be, or empty.
    const std::string& warning() const { return warning_; }
    /// Where the page is to be found.
    const std::string& path() const { return path_; }

private:
    void listen();
    void make_file();
    void remove_the_dead() const;
    void make_page();
    void show_file();
    void remove_own() const;

    uint64_t cookie_ = 0;
    int listener_ = -1;
    int file_ = -1;        ///< the page's, for writing
    int handed_out_ = -1;  ///< the same, for reading
    std::string path_;
    std::string fresh_;  ///< where the page's file is until it says something
    std::string warning_;
    GuardPage* page_ = nullptr;

    // The kernel walks this list when the thread ends (set_robust_list(2)).
    robust_list entry_{};
    robust_list_head robust_{};
};

}  // namespace loopfast::guard
