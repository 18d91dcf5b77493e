// The end of a stream: shutdown, close, and who may unmap the segment.
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/hidden.h"
#include "base/log.h"
#include "link/link.h"
#include "policy/policy.h"
#include "stream/experience.h"
#include "stream/setup.h"
#include "stream/sleep.h"
#include "stream/stream.h"

namespace loopfast {

namespace {

/// Our direction is about to end, and what the peer left unread goes before the end. @return true when
/// somebody sees to both later.
bool finish_later(Stream& stream, int fd, bool shut_down) {
    if (finish_output(stream, fd))
        return false;
    if (steward_hooks.send_the_rest != nullptr && steward_hooks.send_the_rest(stream, fd, shut_down))
        return true;
    // There is nobody, for want of a thread, a descriptor or memory: then this call takes until the kernel
    // has taken the bytes, within limits.
    constexpr int kMostRounds = 2000;
    for (int round = 0; round < kMostRounds && !finish_output(stream, fd); ++round)
        sys::sleep_ns(1'000'000);
    return false;
}

}  // namespace

void prepare_close(Stream& stream, int fd, bool last) {
    withdraw_offer(stream);
    if (last)
        learn_from(stream);
    if (!stream.segment || !last)
        return;
    finish_later(stream, fd, false);
    // Who left the ring may have passed the connection on, and nothing of its end is known here. What he did
    // not read is the peer's again: it may be on its way, or read already.
    if (stream.state() == State::kKernel)
        return;
    // The peer's next call looks at the kernel connection at once instead of within a millisecond. A hint,
    // read relaxed: what it leads to is the kernel's word, which orders for itself.
    stream.our_words().closing.store(kClosingBoth, std::memory_order_release);
    if (stream.reader().available() != 0 && stream.shared->broken.load(std::memory_order_relaxed) == 0) {
        // Closing with bytes unread is a reset, as the kernel does it when they are in its own queue.
        const linger reset{1, 0};
        sys::insisting([&] { return sys::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); });
    }
}

void release_mapping(Stream& stream) {
    // Dekker with Watching: mark, then look. Whoever sees the other one unmaps, and only one can.
    stream.dying.store(true, std::memory_order_seq_cst);
    if (stream.waiters.load(std::memory_order_seq_cst) != 0) {
        // They sleep on the link: out of it, to find the descriptor closed. (Relatives share it, and go on.)
        if (count_holders(*stream.shared) == 0)
            sys::shutdown(stream.link.load(std::memory_order_relaxed), SHUT_RDWR);
        return;
    }
    release_if_dying(stream);
}

// The mark is taken and never set here: when two were the last, one after the other, the second may come when
// the first has released all, and the slot may be another stream's by then, of which nothing is to be
// released.
void release_if_dying(Stream& stream) {
    if (stream.waiters.load(std::memory_order_seq_cst) != 0 ||
        !stream.dying.exchange(false, std::memory_order_seq_cst))
        return;
    // Copies are made under the locks and check the generation first.
    {
        const HoldBoth both(stream.shared->receive_lock, stream.shared->send_lock);
        const int link = stream.link.exchange(-1, std::memory_order_relaxed);
        if (setups_forbidden())
            close_hidden(link);
        else
            close_link(link, false);
        if (!both.held())
            return;  // a knot of handlers: the slot and its memory stay taken
        if (setups_forbidden())
            stream.segment.in_use = false;  // a call that the process's own filter may not expect
        else
            retire_segment(stream.segment);
    }
}

Watching::Watching(Stream& stream) : stream_(stream) {
    // Dekker with release_mapping: announce, then look.
    stream.waiters.fetch_add(1, std::memory_order_seq_cst);
    alive_ = !stream.dying.load(std::memory_order_seq_cst) && static_cast<bool>(stream.segment);
}

Watching::~Watching() { stop_watching(stream_); }

void disconnected(Stream& stream) {
    if (!hold_setup(stream))
        return;
    SharedHalf& shared = *stream.shared;
    if (stream.state() != State::kIdle) {
        const HoldBoth both(shared.receive_lock, shared.send_lock);
        if (stream.segment)
            stream.our_words().closing.store(kClosingBoth, std::memory_order_release);  // as in prepare_close
        refuse(stream, Reason::kOption);
        shared.begun_anew.store(1, std::memory_order_relaxed);
        shared.shut_for_reading.store(0, std::memory_order_relaxed);
        shared.send_to_kernel.store(0, std::memory_order_relaxed);
    }
    release_setup(stream);
    if (!stream.segment)
        return;
    if (set_hooks.unclaim != nullptr && stream.set_entries.load(std::memory_order_relaxed) != 0)
        set_hooks.unclaim(stream);
    // Whoever sleeps on the link comes out, as in leave().
    sys::shutdown(stream.link.load(std::memory_order_relaxed), SHUT_RDWR);
}

int before_shutdown(Stream& stream, int fd, int how) {
    if (how == SHUT_RD || how == SHUT_RDWR)
        stream.shared->shut_for_reading.store(1, std::memory_order_relaxed);
    if (!stream.segment || stream.state() == State::kKernel)  // as in prepare_close
        return how;
    int now = how;
    if (how != SHUT_RD && finish_later(stream, fd, true)) {
        stream.shared->ends_later.store(1, std::memory_order_relaxed);
        now = how == SHUT_RDWR ? SHUT_RD : kShutLater;
    }
    // Each is a hint that makes the peer ask the kernel, which then knows.
    auto& closing = stream.our_words().closing;
    const bool writing = how != SHUT_RD || closing.load(std::memory_order_relaxed).is_set();
    if (writing)
        closing.store(stream.shared->shut_for_reading.load(std::memory_order_relaxed) != 0 ? kClosingBoth
                                                                                           : kClosingWrite,
                      std::memory_order_release);
    return now;
}

void after_shutdown(Stream& stream, int how) {
    if (how != SHUT_RD)
        stream.shared->send_to_kernel.store(1, std::memory_order_seq_cst);
    forget_kernel_readiness(stream);
    if (!stream.segment)
        return;
    // Relatives and threads that sleep on this end hear of it through the kernel socket; the peer too.
    send_note(stream.link.load(std::memory_order_relaxed), Note::kBell);
}

}  // namespace loopfast
