// Who opts in, and with which settings: read once from the environment that `loopfast run` prepares.
//
//     LOOPFAST=on|off            every TCP socket of the process opts in (off: only those that ask)
//     LOOPFAST_SPIN=off|auto|N   how long a wait may poll shared memory before it sleeps, microseconds
//     LOOPFAST_THRESHOLD=BYTES   bytes that a connection must have carried before it is moved over
//     LOOPFAST_IO_URING=allow    io_uring is not hidden from the process, and its connections not moved
//     LOOPFAST_ASSUME=fuse|strict  whether packet filters that this process cannot see are taken to be there
//     LOOPFAST_RULES=...         program:port:lane:spin:threshold[:user[:address]];... the first match sets
//                                each field; "*" matches all, "-" leaves a field to the next rule; a user is
//                                a number, an address is 4/HEX/BITS or 6/HEX/BITS
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
    bool forbidden;      ///< a rule says "off": also for sockets that opted in by themselves
    uint64_t threshold;  ///< bytes
};

/// Reads the environment. Called once, at load; reads nothing else and allocates nothing.
void load_policy();
/// What costs more than to read the environment: called before the first stream is made, never in a process
/// that has none.
void settle_policy();

/// What the process-wide settings say of a connection with this service port (of the listening side, host
/// byte order) and, where one is known, this address of the listening side (AF_INET or AF_INET6).
Decision decide(uint16_t port, int family = 0, const unsigned char* address = nullptr);

/// True when a rule names a port or an address, so that decide() must be given the right one.
bool decide_needs_port();

/// True when some port may be opted in without being asked for.
bool any_opted_in();

/// Whether what cannot be seen counts as a filter (verdict.h).
bool assume_strict();

/// A program may have its io_uring, at the price of the fast path.
bool rings_allowed();

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
