// The two ends of the elastic ring: see ring.h for the rules.
#include "segment/ring.h"

#include <sys/mman.h>

#include "base/copy.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

constexpr uint64_t kPage = 4096;
/// A drained backlog is worth a system call from here on.
constexpr uint64_t kWorthGivingBack = 128 * 1024;
/// A commit fails when a signal handler read in the middle of a read, or when the peer writes on our cursor.
/// The first does not happen this often to one operation; the second could go on for ever.
constexpr int kMostAttempts = 100;

uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

}  // namespace

int Buffers::parts(iovec* parts, int capacity, size_t size) const {
    int filled = 0;
    size_t offset = offset_;
    for (size_t i = 0; i < count_ && size > 0 && filled < capacity; ++i, offset = 0) {
        const size_t length = least(size, parts_[i].iov_len - offset);
        if (length == 0)
            continue;
        parts[filled++] = {static_cast<unsigned char*>(parts_[i].iov_base) + offset, length};
        size -= length;
    }
    return filled;
}

void Buffers::skip(size_t size) {
    while (count_ > 0 && size > 0) {
        const size_t left = parts_->iov_len - offset_;
        if (size < left) {
            offset_ += size;
            return;
        }
        size -= left;
        offset_ = 0;
        ++parts_;
        --count_;
    }
}

template <typename Step> bool Buffers::each(size_t size, Step step) {
    while (size > 0 && count_ > 0) {
        const size_t part = least(size, parts_->iov_len - offset_);
        if (part > 0 && !step(static_cast<unsigned char*>(parts_->iov_base) + offset_, part))
            return false;
        size -= part;
        offset_ += part;
        if (offset_ == parts_->iov_len) {
            offset_ = 0;
            ++parts_;
            --count_;
        }
    }
    return true;
}

bool Buffers::copy_in(void* memory, size_t size) {
    auto* to = static_cast<unsigned char*>(memory);
    return each(size, [&](unsigned char* part, size_t length) {
        const bool good = safe_copy(to, part, length) == 0;
        to += length;
        return good;
    });
}

bool Buffers::copy_out(const void* memory, size_t size) {
    const auto* from = static_cast<const unsigned char*>(memory);
    return each(size, [&](unsigned char* part, size_t length) {
        const bool good = safe_copy(part, from, length) == 0;
        from += length;
        return good;
    });
}

/// Bytes that can be placed from `head` on.
uint64_t RingWriter::room(uint64_t head, uint64_t tail, uint64_t limit, Jump jump) const {
    const uint64_t used = head - tail;
    uint64_t space;
    if (jump.kind() == Jump::kGrow && tail < jump.at()) {
        // The consumer is still in the small window, whose free parts may lie anywhere in it: only what is
        // above the window can be used.
        space = jump.at() + (capacity_ - Jump::small(capacity_)) - head;
    } else {
        space = jump.window(capacity_) - used;
    }
    if (space > capacity_)
        space = 0;  // used exceeds the window: only while a peer writes nonsense
    return least(space, used < limit ? limit - used : 0);
}

/// Makes `jump` known to the consumer. Again before every publication of a head: a relative may have been
/// killed between deciding on a record and storing it. The store is ordered before the head by the swap.
void RingWriter::publish_jump(Jump jump) {
    auto& slot = line_.jump[jump.number() & 1];
    const auto seen = slot.load(std::memory_order_relaxed);
    if (!seen.equals(jump.packed()))
        slot.replace(seen.harmless(), jump.packed(), std::memory_order_relaxed);
}

Jump RingWriter::change(Jump now, uint64_t at, Jump::Kind kind) {
    const Jump next(at, kind, now.number() + 1);
    state_.previous_jump.store(now.packed(), std::memory_order_relaxed);
    state_.jump.store(next.packed(), std::memory_order_relaxed);
    return next;
}

RingResult RingWriter::write(Buffers from, size_t size, uint64_t limit, bool may_grow) {
    for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
        const uint64_t head = line_.head.load(std::memory_order_relaxed).harmless();
        Jump jump(state_.jump.load(std::memory_order_relaxed));
        uint64_t tail = state_.tail.load(std::memory_order_relaxed);
        const size_t place_now = jump.place(head, capacity_);
        // The consumer's line is looked at only when what was seen of it last does not do: when the page
        // runs out (perhaps the ring is empty and can restart) or the room does.
        if (room(head, tail, limit, jump) < size || place_now + size > kPage) {
            if (in_flight(true) > capacity_)
                return {RingResult::kBroken, 0};
            tail = state_.tail.load(std::memory_order_relaxed);
            // The head is never before the record, and a restart was made on an empty ring. Cursors that say
            // otherwise could leave us without room while there seems to be some: a send would be retried
            // for ever.
            if (head < jump.at() || (jump.kind() == Jump::kRestart && head - tail > head - jump.at()))
                return {RingResult::kBroken, 0};
            if (tail == head && head > jump.at() && place_now + size > kPage)
                jump = change(jump, head, Jump::kRestart);
        } else if (head - tail > capacity_) {
            return {RingResult::kBroken, 0};
        }
        uint64_t space = room(head, tail, limit, jump);
        if (space < least(size, limit - least(limit, head - tail)) && jump.kind() == Jump::kRestart &&
            may_grow && jump.window(capacity_) < capacity_ && head > jump.at()) {
            // The window is what is short. A restart was made on an empty ring, so the consumer has passed
            // the record before it, and the slot that a growth needs is free. `head > jump.at()`: each
            // record covers at least one byte, else the reader would never meet it.
            jump = change(jump, head, Jump::kGrow);
            space = room(head, tail, limit, jump);
        }
        const uint64_t count = least(size, space);
        if (count == 0)
            return {RingResult::kDone, 0};
        __builtin_prefetch(&line_, 1, 3);  // for the commit: it comes while the bytes' line does

        Buffers source = from;
        const size_t place = jump.place(head, capacity_);
        const uint64_t window = jump.window(capacity_);
        const uint64_t first = least(count, window - place);
        if (!source.copy_in(data_ + place, first) || (count > first && !source.copy_in(data_, count - first)))
            return {RingResult::kFault, 0};
        const uint64_t reach = count > first ? window : place + count;
        if (reach > state_.high_water.load(std::memory_order_relaxed))
            state_.high_water.store(reach, std::memory_order_relaxed);

        publish_jump(jump);
        // Commit. Release: the bytes and the record are seen with the head (pairs with the acquire in
        // RingReader). Sequentially consistent: the sleeper's token is looked at after this (wake_consumer).
        if (line_.head.replace(head, head + count, std::memory_order_seq_cst))
            return {RingResult::kDone, count};
    }
    return {RingResult::kBroken, 0};
}

bool RingWriter::give_back() {
    const uint64_t reach = state_.high_water.load(std::memory_order_relaxed);
    if (reach < kWorthGivingBack || in_flight(true) != 0)
        return false;
    // The ring is empty and only we could fill it: nobody reads these pages now.
    unsigned char* const from = data_ + kPage;
    if (sys::madvise(from, ((reach + kPage - 1) & ~(kPage - 1)) - kPage, MADV_REMOVE) < 0)
        return false;
    state_.high_water.store(0, std::memory_order_relaxed);
    return true;
}

RingResult RingReader::read(Buffers* to, size_t size, Mode mode) {
    for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
        const uint64_t start = line_.tail.load(std::memory_order_relaxed).harmless();
        // Acquire pairs with the swap in RingWriter::write.
        const auto bounded = peer_.head.load(std::memory_order_acquire).within(start, capacity_);
        if (!bounded)
            return {RingResult::kBroken, 0};
        const uint64_t head = seen_up_to(start, *bounded);
        if (head == start)
            return {RingResult::kDone, 0};
        const Jump first_jump(state_.jump.load(std::memory_order_relaxed));
        Jump jump = first_jump;
        Jump before(state_.previous_jump.load(std::memory_order_relaxed));
        // A reader that was killed after taking a record and before moving its tail past it.
        bool pending = jump.at() > start;
        uint64_t changed_at = ~uint64_t{0};

        uint64_t position = start;
        Buffers target = to != nullptr ? *to : Buffers(nullptr, 0);
        const uint64_t end = start + least(size, head - start);
        if (end < start)
            return {RingResult::kBroken, 0};  // no stream is that long
        while (position < end) {
            uint64_t limit = end;
            if (pending) {
                if (position == jump.at()) {
                    pending = false;
                    continue;
                }
                limit = least(limit, jump.at());
            } else {
                // Harmless: any record yields places inside the capacity.
                const Jump next(
                    peer_.jump[(jump.number() + 1) & 1].load(std::memory_order_relaxed).harmless());
                if (next.follows(jump)) {
                    if (next.at() == position) {
                        // Each record covers a byte. Two for one position are nonsense, and waiting for
                        // something to read behind them would never end.
                        if (changed_at == position)
                            return {RingResult::kBroken, 0};
                        changed_at = position;
                        // One record per commit: `previous_jump` remembers one, should we be killed there.
                        if (mode == kConsume && jump.packed() != first_jump.packed())
                            break;
                        before = jump;
                        jump = next;
                        continue;
                    }
                    if (next.at() > position)
                        limit = least(limit, next.at());
                }
            }
            const Jump& current = pending ? before : jump;
            const size_t place = current.place(position, capacity_);
            const uint64_t count = least(limit - position, current.window(capacity_) - place);
            if (to != nullptr && !target.copy_out(data_ + place, count)) {
                // As the kernel: what was copied before the bad part counts, if anything was.
                if (position == start)
                    return {RingResult::kFault, 0};
                break;
            }
            position += count;
        }
        const size_t taken = position - start;
        if (mode == kPeek || taken == 0)
            return {RingResult::kDone, taken};
        if (jump.packed() != first_jump.packed()) {
            // First the record, then the tail: once the tail is past it the producer may reuse its slot.
            state_.previous_jump.store(before.packed(), std::memory_order_relaxed);
            uint64_t expected = first_jump.packed();
            state_.jump.compare_exchange_strong(expected, jump.packed(), std::memory_order_relaxed);
        }
        // Commit. Release: our reads are done before the producer reuses the room (pairs with the acquire
        // in RingWriter::in_flight). Sequentially consistent: the sleeping producer's token is looked at
        // after this (wake_producer).
        if (line_.tail.replace(start, position, std::memory_order_seq_cst))
            return {RingResult::kDone, taken};
    }
    return {RingResult::kBroken, 0};
}

}  // namespace loopfast
