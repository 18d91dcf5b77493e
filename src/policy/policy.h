// Who opts in, and with which settings: read once from the environment that `loopfast run` prepares.
//
//     LOOPFAST=on|off            every TCP socket of the process opts in (off: only those that ask)
//     LOOPFAST_SPIN=off|auto|N   how long a wait may poll shared memory before it sleeps, microseconds
//     LOOPFAST_THRESHOLD=BYTES   bytes that a connection must have carried before it is moved over
//     LOOPFAST_ASSUME=fuse|strict  what to take for granted of rules that this process cannot see
//     LOOPFAST_RULES=...         program:port:lane:spin:threshold;... the first match decides each field;
//                                "*" matches all, "-" leaves a field to the next rule
#pragma once

#include <cstdint>

namespace loopfast {

/// Spin settings other than a number of microseconds.
constexpr int64_t kSpinOff = 0;
constexpr int64_t kDefaultSpin = 50'000;  // nanoseconds
constexpr uint64_t kDefaultThreshold = 2048;

/// What holds for one connection.
struct Decision {
    bool on;
    uint64_t threshold;  ///< bytes
};

/// Reads the environment. Called once, at load; reads nothing else and allocates nothing.
void load_policy();

/// What the process-wide settings say of a connection with this service port (of the listening side, host
/// byte order).
Decision decide(uint16_t port);

/// True when a rule names a port, so that decide() must be given the right one.
bool decide_needs_port();

/// True when some port may be opted in without being asked for.
bool any_opted_in();

/// Whether what cannot be seen counts as a filter (verdict.h).
bool assume_strict();

/// The process gives up rights, and a filter may come that ends it for a system call which it never makes by
/// itself: from now on nothing is opted in and nothing is set up. Inherited filters are another matter, see
/// docs/security.md.
void forbid_setups();
bool setups_forbidden();

/// Longest spin before a sleep, in nanoseconds; kSpinOff on a machine with one processor.
int64_t spin_budget();
void set_spin_budget(int64_t nanoseconds);

/// Parses "off", "auto" or microseconds. @return nanoseconds, or -1 for anything else.
int64_t parse_spin(const char* text, int size);

}  // namespace loopfast
