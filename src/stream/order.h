// One thread speaks on several connections, some on the kernel lane and some on a ring, and whoever listens
// to all of them in one epoll set hears it in the order in which it was said: a request on a new connection,
// then one on an old connection that waits for what the first one did. The kernel's list of what is ready has
// that order by itself. A ring is looked at before the kernel is asked, and would be heard first.
//
// So a sender that has used the kernel lane since its last word on this ring changes a word beside the head.
// Who scans the rings and finds it changed asks the kernel before it reports that ring. It costs a comparison
// for each message, and a system call only where lanes alternate.
//
// Who sleeps is told of what ended the sleep in the order of the calls (EpollSet::tell_in_order). Else no
// order is kept from a ring to the kernel lane and from one ring to another beyond that of the scan.
#pragma once

#include "base/own_calls.h"
#include "stream/stream.h"

namespace loopfast {

/// Before bytes are published. The sending lock is held.
inline void keep_order(Stream& stream) {
    // A stream that several threads send on would seem to follow a new call at each change: then what counts
    // is whether the thread has made one since it last sent on any ring.
    static thread_local uint32_t told = 0;
    const uint32_t calls = kernel_lane_calls;
    const bool follows =
        stream.ordered_by == &kernel_lane_calls ? stream.ordered_calls != calls : told != calls;
    stream.ordered_by = &kernel_lane_calls;
    stream.ordered_calls = told = calls;
    if (!follows) [[likely]]
        return;
    // Relaxed: ordered before the head by the swap that publishes it, and seen with it (RingWriter::write).
    // Harmless: only ever compared, by the other end.
    auto& word = stream.out().producer.order;
    word.store(word.load(std::memory_order_relaxed).harmless() + 1, std::memory_order_relaxed);
}

/// After a look that found bytes. Where it is another one than at the last look, something that was said
/// before them may wait in the kernel.
inline uint64_t order_of(const Stream& stream) {
    // Harmless: a peer that changes it at will costs us a look at each message, as a bell would.
    return stream.in().producer.order.load(std::memory_order_relaxed).harmless();
}

}  // namespace loopfast
