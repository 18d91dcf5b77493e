// One end of one connection that streams both ways at once and checks what it receives, until the other end
// says it is done, or is gone.
#pragma once

#include <atomic>
#include <cstdint>

#include "peer/pattern.h"

namespace peer {

/// How a connection ended for this end.
enum class End { kEof, kReset, kWrong, kError };

struct Outcome {
    End end = End::kError;
    int error = 0;          ///< errno for kReset and kError
    uint64_t received = 0;  ///< the primary's bytes
    uint64_t relative = 0;  ///< its relative's bytes, after those
    uint64_t sent = 0;
};

/// What a relative needs to go on where a killed process was: shared memory between the two.
struct Progress {
    std::atomic<uint64_t> received;  ///< bytes that were taken out and checked
    std::atomic<uint64_t> asked;     ///< a receive for so many is under way: up to so many may be lost
};

struct Settings {
    uint64_t id = 0;            ///< seeds both directions
    bool acceptor = false;      ///< which of the two directions is ours
    bool epoll = false;         ///< one thread and non-blocking calls; else two threads that block
    bool relative = false;      ///< we send the relative's pattern, from its beginning
    uint64_t receive_from = 0;  ///< offset of the first byte to expect
    /// Set by anybody: stop sending, say so to the other end, and receive until it does the same.
    const std::atomic<bool>* finish = nullptr;
    Progress* progress = nullptr;
};

Outcome run_session(int fd, const Settings& settings);

/// The pattern that an end receives.
Pattern incoming(const Settings& settings, bool relative);

}  // namespace peer
