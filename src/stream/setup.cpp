// The scopes around kernel calls and around changes of state: see setup.h, and fuse.cpp for the rule.
#include "stream/setup.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/alive.h"
#include "base/clock.h"
#include "base/own_calls.h"
#include "policy/policy.h"

namespace loopfast {

int count_holders(SharedHalf& shared) {
    // What counts then is only whether there are others, and that no call is made: see forbid_setups().
    if (setups_forbidden()) [[unlikely]] {
        int known = static_cast<int>(shared.more_holders.load(std::memory_order_relaxed));
        for (auto& holder : shared.holders)
            known += holder.load(std::memory_order_relaxed) != 0 ? 1 : 0;
        return known;
    }
    const int own = owner_process.load(std::memory_order_relaxed);
    // Acquire pairs with the release in after_fork_in_child().
    int count = static_cast<int>(shared.more_holders.load(std::memory_order_acquire));
    for (auto& holder : shared.holders) {
        int pid = holder.load(std::memory_order_relaxed);
        if (pid == 0)
            continue;
        if (pid != own && is_gone(pid)) {
            // It died without closing; its entry is anybody's to clear.
            holder.compare_exchange_strong(pid, 0, std::memory_order_relaxed);
            continue;
        }
        ++count;
    }
    return count;
}

bool held_by_us_alone(Stream& stream) {
    SharedHalf& shared = *stream.shared;
    if (count_holders(shared) == 1)
        return true;
    shared.reason.store(static_cast<uint32_t>(Reason::kShared), std::memory_order_relaxed);
    return false;
}

namespace {

bool take_setup(SharedHalf& shared) {
    uint32_t owner = 0;
    // Acquire pairs with the release below: we see what the last one in here did.
    if (shared.setup_owner.compare_exchange_strong(owner, my_tid(), std::memory_order_acquire))
        return true;
    // A relative that was killed in here has left its name. Nothing else: what it was about to change lay in
    // its own memory, or it had no living relative.
    return owner != my_tid() && is_gone(static_cast<int>(owner)) &&
           shared.setup_owner.compare_exchange_strong(owner, my_tid(), std::memory_order_acquire);
}

}  // namespace

bool hold_setup(Stream& stream) {
    // A setup lasts for a few system calls that cannot block. The limit is for a handler on top of one, and
    // for the name of a dead owner that now belongs to some other thread.
    constexpr unsigned kRounds = 10'000;
    for (unsigned round = 0; round < kRounds; ++round) {
        if (take_setup(*stream.shared))
            return true;
        if (stream.shared->setup_owner.load(std::memory_order_relaxed) == my_tid())
            return false;
        sys::sleep_ns(10'000);
    }
    return false;
}

void release_setup(Stream& stream) { stream.shared->setup_owner.store(0, std::memory_order_release); }

namespace {

constexpr uint64_t bit_of(int signal) { return uint64_t{1} << (signal - 1); }
/// All but those that an instruction of the thread's own raises.
constexpr uint64_t kFromOutside = ~(bit_of(SIGSEGV) | bit_of(SIGBUS) | bit_of(SIGFPE) | bit_of(SIGILL) |
                                    bit_of(SIGTRAP) | bit_of(SIGSYS) | bit_of(SIGABRT));

/// The kernel's own call: libc's leaves out the signals by which it cancels threads.
void change_mask(int how, const uint64_t& mask, uint64_t* before) {
    sys::call(SYS_rt_sigprocmask, how, sys::word(const_cast<uint64_t*>(&mask)), sys::word(before),
              sizeof mask);
}

}  // namespace

SetupScope::SetupScope(Stream& stream, int fd) : stream_(stream), entered_(false) {
    // Looked at first, so that who comes second makes no system call.
    if (stream.shared->setup_owner.load(std::memory_order_relaxed) == my_tid())
        return;
    change_mask(SIG_BLOCK, kFromOutside, &signals_);
    entered_ = take_setup(*stream.shared);
    if (entered_)
        stream.setup_fd = fd;
    else
        change_mask(SIG_SETMASK, signals_, nullptr);
}

SetupScope::~SetupScope() {
    if (!entered_)
        return;
    release_setup(stream_);
    change_mask(SIG_SETMASK, signals_, nullptr);
}

Exclusive::Exclusive(Stream& stream, int fd, State before) : stream_(stream), before_(before) {
    SharedHalf& shared = *stream.shared;
    // Relatives first: none can come into being while we are in a setup (hold_setup), so none will ever see
    // kPending, and none is left waiting when we are killed.
    if (!held_by_us_alone(stream)) {
        granted_ = false;
        settled_ = true;
        return;
    }
    // Dekker with KernelReceive: announce, then look. seq_cst on both sides.
    shared.state.store(State::kPending, std::memory_order_seq_cst);
    granted_ = stream.kernel_readers.load(std::memory_order_seq_cst) == 0 &&
               stream.kernel_senders.load(std::memory_order_seq_cst) == 0 &&
               (set_hooks.claim == nullptr || set_hooks.claim(stream, fd));
}

Exclusive::~Exclusive() {
    // Also after a half-done claim: entries without a segment belong to the kernel's sets.
    if (!stream_.segment && set_hooks.unclaim != nullptr &&
        stream_.set_entries.load(std::memory_order_relaxed) != 0)
        set_hooks.unclaim(stream_);
    if (!settled_)
        stream_.shared->state.store(before_, std::memory_order_seq_cst);
}

namespace {

/// Waits out another thread's kPending, which lasts for a few system calls that cannot block.
void wait_while_pending(SharedHalf& shared) {
    for (unsigned round = 0; shared.state.load(std::memory_order_acquire) == State::kPending; ++round) {
        if (shared.setup_owner.load(std::memory_order_relaxed) == my_tid())
            return;  // a handler on top of our own setup: the kernel lane is still the right one
        if (round < 100)
            pause_cpu();
        else
            sys::sleep_ns(10'000);
    }
}

}  // namespace

KernelReceive::KernelReceive(Stream& stream) : stream_(stream), allowed_(true) {
    note_own_call();
    SharedHalf& shared = *stream.shared;
    for (;;) {
        // Dekker with Exclusive: announce, then look. seq_cst on both sides.
        stream.kernel_readers.fetch_add(1, std::memory_order_seq_cst);
        const State state = shared.state.load(std::memory_order_seq_cst);
        if (state == State::kProposed || state == State::kFused) {
            stream.kernel_readers.fetch_sub(1, std::memory_order_release);
            allowed_ = false;
            return;
        }
        if (state != State::kPending || shared.setup_owner.load(std::memory_order_relaxed) == my_tid())
            return;
        stream.kernel_readers.fetch_sub(1, std::memory_order_release);
        wait_while_pending(shared);
    }
}

KernelReceive::~KernelReceive() {
    // Release pairs with the load in Exclusive: bytes counted in here are seen by who finds nobody.
    if (allowed_)
        stream_.kernel_readers.fetch_sub(1, std::memory_order_release);
}

void KernelReceive::count(long result, int flags) {
    if (result <= 0 || (flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) != 0)
        return;
    stream_.shared->kernel_in.fetch_add(static_cast<uint64_t>(result), std::memory_order_relaxed);
    stream_.shared->counters.messages_in.fetch_add(1, std::memory_order_relaxed);
}

KernelSend::KernelSend(Stream& stream) : stream_(stream), allowed_(true) {
    note_own_call();
    note_kernel_lane_call();
    SharedHalf& shared = *stream.shared;
    for (unsigned round = 0;; ++round) {
        // Dekker with publish_cut and Exclusive: announce, then look. seq_cst on both sides.
        stream.kernel_senders.fetch_add(1, std::memory_order_seq_cst);
        const bool cutting = stream.cutting.load(std::memory_order_seq_cst) != 0 ||
                             shared.state.load(std::memory_order_seq_cst) == State::kPending;
        if (!cutting || shared.setup_owner.load(std::memory_order_relaxed) == my_tid()) {
            if (shared.out_lane.load(std::memory_order_acquire) != Lane::kRing)
                return;
            stream.kernel_senders.fetch_sub(1, std::memory_order_release);
            allowed_ = false;
            return;
        }
        stream.kernel_senders.fetch_sub(1, std::memory_order_release);
        wait_while_pending(shared);
        if (round >= 100)
            sys::sleep_ns(10'000);
        else
            pause_cpu();
    }
}

KernelSend::~KernelSend() {
    if (allowed_)
        stream_.kernel_senders.fetch_sub(1, std::memory_order_release);
}

void KernelSend::count(long result, size_t wanted) {
    // Relaxed: who fuses the stream has seen this thread leave (Exclusive), or is this thread.
    if (result < 0 || static_cast<size_t>(result) < wanted)
        stream_.shared->full_count.fetch_add(1, std::memory_order_relaxed);
    if (result <= 0)
        return;
    stream_.shared->kernel_out.fetch_add(static_cast<uint64_t>(result), std::memory_order_relaxed);
    stream_.shared->counters.messages_out.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace loopfast
