// The page in which `loopfast guard` publishes what looks at loopback packets in its network namespace, and
// which every process of that namespace maps read-only. The guard writes it (src/guard/), the library and the
// command read it (guard_view.h).
//
// Its first word is all that a send or receive looks at. The low half is a robust futex that the guard holds:
// when the guard dies, however it does, the kernel itself takes its thread id out of it. The high half counts
// the changes of what follows, and is odd while it is being changed. So one load tells that nothing has
// changed and that the guard is alive.
#pragma once

#include <linux/futex.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "filters/findings.h"

namespace loopfast {

constexpr uint64_t kGuardMagic = 0x6472617567667066;
constexpr uint32_t kGuardVersion = 1;
constexpr uint32_t kMostCgroups = 4096;

/// A directory that only root can write to. The file in it is named after the network namespace's cookie.
constexpr char kGuardDirectory[] = "/run/loopfast";
constexpr char kGuardFile[] = "guard-%llx";
/// Where that directory is not shared (containers): an abstract name, behind which the guard hands out the
/// same file. Who listens there must be root.
constexpr char kGuardName[] = "loopfast/guard/1";

struct GuardPage {
    std::atomic<uint64_t> word;
    uint64_t magic;
    uint32_t version;
    uint32_t size;  ///< sizeof(GuardPage)
    uint64_t namespace_cookie;
    /// Counts up several times a second: a guard that is alive but was stopped sees nothing.
    std::atomic<uint64_t> beat;
    int32_t pid;  ///< the guard's, in its own process namespace

    // What the word's high half counts the changes of.
    uint32_t count;  ///< objections that hold for the whole namespace
    uint32_t more;   ///< of those, how many more there are
    /// Control groups whose sockets' packets go through a program, those below included; by their ids in
    /// ascending order. More than there is room for: it holds for all.
    uint32_t cgroup_count;
    uint32_t unseen;  ///< one bit for each Kind that the guard may not ask about
    Objection objections[Findings::kMost];
    Objection cgroup_objection;  ///< one of those that `cgroups` is about, for its text
    uint64_t cgroups[kMostCgroups];

    static uint32_t owner(uint64_t word) { return static_cast<uint32_t>(word) & FUTEX_TID_MASK; }
    static bool being_changed(uint64_t word) { return (word >> 32 & 1) != 0; }
};
static_assert(sizeof(std::atomic<uint64_t>) == 8 && std::atomic<uint64_t>::is_always_lock_free);

}  // namespace loopfast
