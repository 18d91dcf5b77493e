// What poll, select and epoll say of a stream: the ring's state for data and room, the kernel's word for
// everything that concerns life and death.
#include <poll.h>

#include "base/ready.h"
#include "base/ticks.h"
#include "link/link.h"
#include "stream/stream.h"

namespace loopfast {

namespace {
constexpr uint32_t kAsked =
    POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND;
constexpr uint32_t kEnded = POLLRDHUP | POLLHUP | POLLERR;
}  // namespace

uint32_t kernel_readiness(Stream& stream, int fd, Freshness freshness) {
    uint64_t seen = stream.kernel_ready.load(std::memory_order_relaxed);
    uint32_t ready = static_cast<uint32_t>(seen);
    bool ask = (ready & (kUnknown | POLLERR)) != 0;  // an error is there until somebody collects it
    if (!stream.in_in_ring() || !stream.out_in_ring())
        ask = true;  // bytes and room come and go in the kernel still
    if (!ask && (ready & kEnded) != 0 && freshness == Freshness::kRecent)
        ask = true;  // what comes next is a reset or the other half
    if (!ask && (ready & kEnded) == 0) {
        // A peer that says it is closing is about to close the kernel connection. Who has no events to go by
        // asks as well where somebody turned away from the ring, since bytes come over the kernel lane then;
        // and now and then, as one that was killed says nothing.
        ask = stream.their_words().closing.load(std::memory_order_relaxed).is_set() ||
              (freshness == Freshness::kRecent &&
               (stream.in().producer.turned_away.load(std::memory_order_relaxed).is_set() ||
                ticks() - stream.last_kernel_look.load(std::memory_order_relaxed) >
                    (stream.watched.load(std::memory_order_relaxed) != 0 ? kWatchedTicks : kTicksPer50us)));
    }
    if (!ask)
        return ready;
    look_if_due();
    const int answer = ready_now(fd, kAsked);
    if (answer < 0 || (answer & POLLNVAL) != 0)
        return POLLNVAL;
    ready = static_cast<uint32_t>(answer);
    if ((ready & kEnded) != 0 && stream.segment)
        show_end(stream);
    // Kept only if no event came while we asked; for this call it is true in any case.
    stream.kernel_ready.compare_exchange_strong(seen, (seen >> 32) << 32 | ready, std::memory_order_relaxed);
    stream.last_kernel_look.store(ticks(), std::memory_order_relaxed);
    // A peer that left is noticed by the link, on which a program that never waits gets no events.
    if (stream.segment && stream.out_in_ring() && !stream.link_down.load(std::memory_order_relaxed) &&
        stream.writer().in_flight(true) != 0 && hung_up(stream.link.load(std::memory_order_relaxed)))
        stream.link_down.store(true, std::memory_order_relaxed);
    return ready;
}

bool refused_by_the_dead(Stream& stream, int fd) {
    if (!stream.out_in_ring() || said_that_it_left(stream) || stream.writer().in_flight(true) == 0 ||
        stream.shared->send_to_kernel.exchange(1, std::memory_order_relaxed) != 0)
        return false;
    // The bytes themselves are what is sent: should somebody be there after all, they are his.
    return_to_kernel(stream, fd);
    forget_kernel_readiness(stream);
    return true;
}

uint32_t readiness(Stream& stream, int fd, Freshness freshness) {
    SharedHalf& shared = *stream.shared;
    if (!stream.in_in_ring() || !stream.out_in_ring()) [[unlikely]]
        advance(stream, fd);
    if (stream.link_down.load(std::memory_order_relaxed) && peer_left(stream, fd)) [[unlikely]]
        return_to_kernel(stream, fd);
    uint32_t kernel = kernel_readiness(stream, fd, freshness);
    if (stream.state() == State::kKernel)
        return kernel;
    if ((kernel & (POLLRDHUP | POLLHUP | POLLERR)) == POLLRDHUP &&
        stream.link_down.load(std::memory_order_relaxed) && refused_by_the_dead(stream, fd))
        kernel = kernel_readiness(stream, fd, Freshness::kCached);
    uint32_t ready = kernel & (kEnded | POLLPRI | POLLRDBAND);

    const uint64_t cut = stream.in().producer.cut.load(std::memory_order_acquire).harmless();
    const bool in_ring = cut != kNoCut && cut - 1 == shared.kernel_in.load(std::memory_order_relaxed);
    const uint64_t wanted = low_water(stream);
    if (in_ring && stream.reader().available() >= wanted)
        ready |= POLLIN | POLLRDNORM;
    ready |= kernel & (POLLIN | POLLRDNORM);  // the kernel lane's bytes, or the end
    // SO_RCVLOWAT while bytes wait on both lanes: they count together.
    if (wanted > 1 && (ready & POLLIN) == 0 && cut != kNoCut &&
        (!stream.in_in_ring() || waits_on_both_lanes(stream)) && bytes_waiting(stream, fd) >= wanted)
        ready |= POLLIN | POLLRDNORM;

    // While our direction is the ring's, what the peer left there goes first, but for what it keeps. Once we
    // have turned away from it, what lies there is the peer's to read, when it likes.
    if (stream.out_in_ring() && shared.peer_left.load(std::memory_order_relaxed) != 0) {
        if (!has_unsent(stream))
            ready |= kernel & (POLLOUT | POLLWRNORM | POLLWRBAND);
    } else if (!stream.out_in_ring() || shared.send_to_kernel.load(std::memory_order_relaxed) != 0 ||
               (kernel & (POLLHUP | POLLERR)) != 0)
        ready |= kernel & (POLLOUT | POLLWRNORM | POLLWRBAND);
    else if (has_room(stream))
        ready |= POLLOUT | POLLWRNORM | (kernel & POLLWRBAND);
    return ready;
}

}  // namespace loopfast
