// A pair: two connected ends, brought about in one of many ways that a case need not know of.
#pragma once

#include <functional>
#include <string>

#include "end.h"

namespace differential {

/// Where the two ends live.
enum class Processes { kOne, kForkBefore, kForkAfter, kUsers };
enum class Family { kV4, kV6, kMapped };

/// Everything that the two runs of a comparison have in common.
struct Setup {
    Processes processes = Processes::kOne;
    Family family = Family::kV4;
    bool swapped = false;      ///< `a` is the accepting side
    bool nonblocking = false;  ///< both ends are, from the start
    uint64_t steps = 150;      ///< of random cases
    std::string only;          ///< of random cases: the numbers of the steps to do, all when empty
};

/// What the library is to do; in the kernel lanes it is not even loaded.
struct Lane {
    std::string name;      ///< kernel-warm, kernel, ring, early, run:THRESHOLD, left:...
    bool opts_in = false;  ///< by ioctl, on the listener and before connect
    bool warm = false;     ///< small messages go back and forth before the case begins
    bool fused = false;    ///< and after them both ends must be on the ring
    /// When they leave it, as environment of the library that does so (src/wait/chance.h).
    std::vector<std::pair<std::string, std::string>> leaves = {};
};

struct Pair {
    Pair(Script& the_script, const Setup& the_setup, const Lane& the_lane)
        : script(the_script), setup(the_setup), lane(the_lane) {}

    Script& script;
    const Setup& setup;
    const Lane& lane;
    uint64_t parameter = 0;  ///< of cases that have one: the seed

    /// The ends. `a` and `b` are what cases use: they are `client` and `server`, or the other way round.
    End a, b;
    End client, server, listener;

    /// What a case does to the sockets before they are used.
    std::function<void(int)> before_listen = nullptr;
    std::function<void(int)> before_connect = nullptr;
    int accept_flags = 0;
    /// Tells the kernel lanes' and the ring lanes' connections apart: no opt-in at all on one side.
    bool client_opts_in = true;
    bool server_opts_in = true;

    /// The whole way to two connected ends, each in its process, warmed up if the lane says so.
    void establish();
    // Its parts, for cases about connecting.
    void listen();
    void make_client();
    Outcome connect();
    Outcome send_and_connect(const std::string& bytes);  ///< with MSG_FASTOPEN
    Outcome accept();
    void take_sides();  ///< names the ends, moves them into their processes, warms up

    /// Looks whether the end is on the ring by now; the runner counts that. In quiet.
    void observe(const End& end, const char* when) const;

private:
    void warm_up();
    int port_ = 0;
};

/// The lane of a descriptor as the library says: 1 ring, 0 kernel, -1 unknown (no library).
int lane_of(int fd);
int opt_in(int fd);

}  // namespace differential
