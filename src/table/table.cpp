// See table.h.
#include "table/table.h"

#include <errno.h>
#include <fcntl.h>

#include "base/alive.h"
#include "base/apart.h"
#include "base/hidden.h"
#include "base/lock.h"
#include "base/ready.h"
#include "policy/policy.h"
#include "stream/setup.h"

namespace loopfast {

namespace {

// Closed streams that some thread was still using when their descriptor went: their slots are freed later.
constexpr int kMostLingering = 256;
std::atomic<uint32_t> lingering[kMostLingering];  // slot + 1

bool in_use(const Stream& stream) {
    // Acquire pairs with the release at the end of KernelReceive and KernelSend.
    return stream.waiters.load(std::memory_order_acquire) != 0 ||
           stream.kernel_readers.load(std::memory_order_acquire) != 0 ||
           stream.kernel_senders.load(std::memory_order_acquire) != 0 || stream.segment;
}

void reap_lingering() {
    for (auto& entry : lingering) {
        uint32_t value = entry.load(std::memory_order_relaxed);
        if (value != 0 && !in_use(stream_at(value - 1)) &&
            entry.compare_exchange_strong(value, 0, std::memory_order_relaxed))
            free_slot(value - 1);
    }
}

bool any_lingering = false;

/// More than the streams that are closed at one moment, so that closing does not queue up.
constexpr uint32_t kDescriptorLocks = 256;

/// `fd`, by which the stream is known to the steward, is about to be closed.
void name_another_descriptor(Stream& stream, int fd, TableEntry entry) {
    Hold hold(descriptor_lock(stream.slot));
    int other = -1;
    if (stream.local_refs.load(std::memory_order_relaxed) > 1) {
        other = next_entry(-1);
        while (other >= 0 && (other == fd || find(other).packed() != entry.packed()))
            other = next_entry(other);
    }
    stream.descriptor.store(other, std::memory_order_relaxed);
}

void free_or_linger(Stream& stream) {
    if (!in_use(stream)) {
        free_slot(stream.slot);
        return;
    }
    any_lingering = true;
    for (auto& entry : lingering) {
        uint32_t nothing = 0;
        if (entry.compare_exchange_strong(nothing, stream.slot + 1, std::memory_order_relaxed))
            return;
    }
    // No place left to remember it: the slot stays taken.
}

void add_holder(SharedHalf& shared, int pid) {
    for (auto& holder : shared.holders) {
        int nobody = 0;
        if (holder.compare_exchange_strong(nobody, pid, std::memory_order_relaxed))
            return;
    }
    shared.more_holders.fetch_add(1, std::memory_order_relaxed);
}

void remove_holder(SharedHalf& shared, int pid) {
    for (auto& holder : shared.holders) {
        int expected = pid;
        if (holder.compare_exchange_strong(expected, 0, std::memory_order_relaxed))
            return;
    }
    uint32_t more = shared.more_holders.load(std::memory_order_relaxed);
    while (more != 0 &&
           !shared.more_holders.compare_exchange_weak(more, more - 1, std::memory_order_relaxed)) {
    }
}

}  // namespace

void open_table(std::atomic<uint64_t>* entries) {
    owner_process.store(sys::getpid(), std::memory_order_relaxed);
    table_detail::entries = entries;
    // Release pairs with the acquire in find(): who sees the limit sees the array.
    table_detail::limit.store(kMostDescriptors, std::memory_order_release);
}

bool in_borrowed_memory() {
    // Under a filter of the program's own no call is made, not even this one; nor does it vfork then.
    if (setups_forbidden()) [[unlikely]]
        return false;
    return sys::getpid() != owner_process.load(std::memory_order_relaxed);
}

void set_entry(int fd, TableEntry entry) {
    const auto number = static_cast<uint32_t>(fd);
    if (number >= kMostDescriptors || !open_arena())
        return;
    // Relaxed: next_entry() looks for the entries of calls that came before its own.
    uint32_t end = table_detail::end.load(std::memory_order_relaxed);
    while (entry.kind() != EntryKind::kNone && end <= number &&
           !table_detail::end.compare_exchange_weak(end, number + 1, std::memory_order_relaxed)) {
    }
    // Release pairs with the acquire in find().
    table_detail::entries[fd].store(entry.packed(), std::memory_order_release);
}

Stream* make_stream(int fd) {
    if (static_cast<uint32_t>(fd) >= kMostDescriptors)
        return nullptr;
    if (!had_streams()) [[unlikely]]
        settle_policy();
    if (any_lingering)
        reap_lingering();
    const int slot = take_slot();
    if (slot < 0) {
        table_detail::room_lacked.store(true, std::memory_order_relaxed);
        return nullptr;
    }
    Stream& stream = stream_at(static_cast<uint32_t>(slot));
    stream.shared->state.store(State::kIdle, std::memory_order_relaxed);
    stream.shared->reason.store(static_cast<uint32_t>(Reason::kNone), std::memory_order_relaxed);
    add_holder(*stream.shared, owner_process.load(std::memory_order_relaxed));
    stream.local_refs.store(1, std::memory_order_relaxed);
    stream.descriptor.store(fd, std::memory_order_relaxed);
    // Relaxed: another thread learns of the descriptor from this one, after it was made.
    table_detail::streams_made.store(true, std::memory_order_relaxed);
    set_entry(fd, TableEntry(EntryKind::kStream, stream.slot, stream.generation));
    return &stream;
}

void duplicated(int fd, int copy) {
    const TableEntry entry = find(fd);
    if (entry.kind() == EntryKind::kStream) {
        Stream* stream = find_stream(fd);
        if (stream == nullptr || in_borrowed_memory())
            return;
        stream->local_refs.fetch_add(1, std::memory_order_relaxed);
        set_entry(copy, entry);
    } else if (entry.kind() == EntryKind::kSet && !in_borrowed_memory()) {
        set_entry(copy, entry);
    }
}

namespace {

/// Attempts that have the number in hand come to an end: they do not sleep. Not one in a frame below this
/// one, which goes on after this handler, nor one that may want what is held there.
void await_reaching(Stream& stream) {
    constexpr int kMostRounds = 20'000;
    if (held_locks != 0 || (table_hooks.reaches != nullptr && table_hooks.reaches(stream)))
        return;
    for (int round = 0; round < kMostRounds && stream.reaching.load(std::memory_order_seq_cst) != 0; ++round)
        sys::sleep_ns(100'000);
}

/// Calls wait on the stream: a duplicate of the descriptor keeps the connection until they are over.
void keep(Stream& stream, int fd, TableEntry entry) {
    if (table_hooks.end_jumped_calls != nullptr)
        table_hooks.end_jumped_calls();
    const int below = table_hooks.overtake_calls != nullptr ? table_hooks.overtake_calls(stream) : 0;
    if (stream.callers.load(std::memory_order_seq_cst) <= below ||
        stream.kept.load(std::memory_order_relaxed) >= 0)
        return;
    const int kept = hide_copy(fd);
    if (kept < 0)
        return;
    stream.local_refs.fetch_add(1, std::memory_order_relaxed);
    set_entry(kept, entry);
    // seq_cst: Dekker with the end of a call, which counts itself out and then looks for the duplicate.
    stream.kept.store(kept, std::memory_order_seq_cst);
    if (stream.callers.load(std::memory_order_seq_cst) <= below)
        let_go_of_kept(stream);
    else
        await_reaching(stream);
}

}  // namespace

void close_kept(int fd) {
    const TableEntry entry = before_close(fd);
    close_hidden(fd);
    after_close(fd, entry);
}

void let_go_of_kept(Stream& stream) {
    const int kept = stream.kept.exchange(-1, std::memory_order_seq_cst);
    if (kept >= 0)
        close_kept(kept);
}

TableEntry before_close(int fd) {
    const TableEntry entry = find(fd);
    note_own_call();
    if (entry.kind() == EntryKind::kNone || in_borrowed_memory())
        return {};
    if (entry.kind() == EntryKind::kSet && table_hooks.set_closing != nullptr)
        table_hooks.set_closing(entry.index(), fd);
    if (entry.kind() == EntryKind::kStream) {
        note_kernel_lane_call();
        Stream* stream = find_stream(fd);
        // From here on the number means nothing to us. Then look for calls, see Caller: Dekker, seq_cst.
        table_detail::entries[fd].store(0, std::memory_order_seq_cst);
        if (stream != nullptr && stream->callers.load(std::memory_order_seq_cst) != 0) [[unlikely]]
            keep(*stream, fd, entry);
        if (stream != nullptr && stream->descriptor.load(std::memory_order_relaxed) == fd)
            name_another_descriptor(*stream, fd, entry);
        if (stream != nullptr && stream->local_refs.load(std::memory_order_relaxed) == 1) {
            if (stream->set_entries.load(std::memory_order_relaxed) != 0 &&
                table_hooks.stream_closing != nullptr)
                table_hooks.stream_closing(*stream);
            prepare_close(*stream, fd, count_holders(*stream->shared) == 1);
        } else if (stream != nullptr && stream->set_entries.load(std::memory_order_relaxed) != 0 &&
                   table_hooks.descriptor_closing != nullptr) {
            for (int other = next_entry(-1); other >= 0; other = next_entry(other))
                if (other != fd && find(other).packed() == entry.packed()) {
                    table_hooks.descriptor_closing(*stream, fd, other);
                    break;
                }
        }
    }
    // The kernel may give the number to another thread's descriptor before close returns.
    set_entry(fd, {});
    return entry;
}

void after_close(int fd, TableEntry entry) {
    (void)fd;
    if (entry.kind() == EntryKind::kSet) {
        for (int other = next_entry(-1); other >= 0; other = next_entry(other))
            if (find(other).packed() == entry.packed())
                return;  // a duplicate of the set's descriptor is left
        if (table_hooks.set_closed != nullptr)
            table_hooks.set_closed(entry.index());
        return;
    }
    if (entry.kind() != EntryKind::kStream)
        return;
    Stream& stream = stream_at(entry.index());
    // acq_rel: the last one to let go sees what the others did with the stream before they did.
    if (stream.generation != entry.generation() ||
        stream.local_refs.fetch_sub(1, std::memory_order_acq_rel) != 1)
        return;
    SharedHalf& shared = *stream.shared;
    remove_holder(shared, owner_process.load(std::memory_order_relaxed));
    const bool last = count_holders(shared) == 0;
    if (last)
        shared.generation.fetch_add(1, std::memory_order_relaxed);  // calls still under way get EBADF
    // The role stays: a thread that still waits on this stream finds its direction by it.
    stream.generation.store(~entry.generation(), std::memory_order_relaxed);
    if (stream.segment)
        release_mapping(stream);
    if (last)
        free_or_linger(stream);
}

int next_entry(int from) {
    const uint32_t end = table_detail::end.load(std::memory_order_relaxed);
    for (uint32_t fd = static_cast<uint32_t>(from + 1); fd < end; ++fd)
        if (table_detail::entries[fd].load(std::memory_order_relaxed) != 0)
            return static_cast<int>(fd);
    return -1;
}

FamilyLock& descriptor_lock(uint32_t slot) {
    static FamilyLock locks[kDescriptorLocks];
    return locks[slot % kDescriptorLocks];
}

void before_fork() {
    for_each_stream([](Stream& stream) {
        // No other thread may be in the middle of fusing it: the child would have half of that.
        stream.held_for_fork = hold_setup(stream);
        // An offer belongs to one process: who accepts its connection must be the one that confirms. An
        // acceptor that waits for the connector goes on waiting; the child lets go of its copy of the link. A
        // sign that goes with a proposal any relative can take back.
        if (stream.role == Role::kConnector && !stream.fused())
            withdraw_offer(stream);
        // The child's place, held for it until it runs: the parent may close its own meanwhile.
        stream.shared->more_holders.fetch_add(1, std::memory_order_relaxed);
        // seq_cst: Dekker with hold_back(), see holds_some().
        stream.shared->had_relatives.store(1, std::memory_order_seq_cst);
        if (const Watching watching(stream); watching.alive())
            show_held(stream);
    });
}

void before_exec() {
    for_each_stream([](Stream& stream) { stream.stays_over_exec = false; });
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd)) {
        Stream* const stream = find_stream(fd);
        const int flags = stream != nullptr ? sys::fcntl(fd, F_GETFD) : -1;
        if (flags >= 0 && (flags & FD_CLOEXEC) == 0)
            stream->stays_over_exec = true;
    }
    for_each_stream([](Stream& stream) {
        if (!stream.stays_over_exec)
            remove_holder(*stream.shared, owner_process.load(std::memory_order_relaxed));
    });
}

void after_failed_exec() {
    for_each_stream([](Stream& stream) {
        if (!stream.stays_over_exec)
            add_holder(*stream.shared, owner_process.load(std::memory_order_relaxed));
    });
}

void after_fork_in_parent() {
    for_each_stream([](Stream& stream) {
        if (stream.held_for_fork) {
            stream.held_for_fork = false;
            release_setup(stream);
        }
    });
}

void after_fork_in_child() {
    cached_tid = 0;
    // Locks in private memory: their holders' copies will never let go of them here.
    hidden_after_fork_in_child();
    apart_after_fork_in_child();
    ready_set_after_fork_in_child();
    arena_after_fork_in_child();
    owner_process.store(sys::getpid(), std::memory_order_relaxed);
    for_each_stream([](Stream& stream) {
        SharedHalf& shared = *stream.shared;
        // First in, then off the place that was held for us: a relative that counts in between must not miss
        // us, and take itself for the last. Release: the count is seen to go down only with our name in
        // place.
        add_holder(shared, owner_process.load(std::memory_order_relaxed));
        shared.more_holders.fetch_sub(1, std::memory_order_release);
        forget_link_of_parent(stream);
        // What was held for the fork the parent gives back. Its other threads exist in the parent only.
        stream.held_for_fork = false;
        stream.kernel_readers.store(0, std::memory_order_relaxed);
        stream.kernel_senders.store(0, std::memory_order_relaxed);
        stream.cutting.store(0, std::memory_order_relaxed);
        stream.waiters.store(0, std::memory_order_relaxed);
        stream.callers.store(0, std::memory_order_relaxed);
        stream.reaching.store(0, std::memory_order_relaxed);
        stream.watched.store(0, std::memory_order_relaxed);
        stream.registered_receiver.store(0, std::memory_order_relaxed);
        stream.registered_sender.store(0, std::memory_order_relaxed);
        descriptor_lock(stream.slot).reset();
    });
    if (any_lingering)
        for (auto& entry : lingering)
            entry.store(0, std::memory_order_relaxed);
    if (table_hooks.forked != nullptr)
        table_hooks.forked();
    for_each_stream([](Stream& stream) {
        if (stream.callers.load(std::memory_order_relaxed) == 0)
            let_go_of_kept(stream);
    });
    if (table_hooks.steward_forked != nullptr)
        table_hooks.steward_forked();
}

}  // namespace loopfast
