// The guard's page as others see it: found, proven to be root's, mapped, read.
//
// Nobody but root may be believed, or a stranger could say "nothing forbids it" of somebody else's
// connections. What is believed is a file that belongs to root and that only root may write to: found in a
// directory that is root's, or received from a process that is root as the kernel names the one that listens.
// A process in a user namespace believes that namespace's root, who can do with it as he likes anyway.
#pragma once

#include "policy/guard_page.h"

namespace loopfast {

/// Looks for the guard of the network namespace with this cookie, which must be the caller's own. Waits for
/// nobody but a root that listens and does not answer, 10 ms at most. @return the page, mapped read-only at
/// `place` (any place, if null), or null. Then `error` may say that memory or descriptors did not suffice to
/// find out.
const GuardPage* map_guard(uint64_t namespace_cookie, void* place, int& error);

/// The address space that a page takes.
size_t guard_mapping_size();

/// The network namespace's cookie, as a socket of it tells; 0 if the kernel does not, kNamespaceUnknown if it
/// did not now.
constexpr uint64_t kNamespaceUnknown = ~uint64_t{0};
uint64_t namespace_of(int socket);

/// A consistent copy of what a page says of one control group's sockets (0: of none in particular).
struct GuardState {
    uint64_t word = 0;  ///< what it was read under; 0 if it could not be read
    bool alive = false;
    bool objects = false;
    uint32_t unseen = 0;
    Objection objection;  ///< the first one
};
GuardState read_guard(const GuardPage& page, uint64_t cgroup);

/// All objections for the whole namespace. @return false when the guard is gone.
bool read_guard(const GuardPage& page, Findings& findings);

}  // namespace loopfast
