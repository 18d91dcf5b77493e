// Sending: one attempt, on the lane that is due.
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/cpu.h"
#include "base/own_calls.h"
#include "base/real.h"
#include "base/ticks.h"
#include "link/link.h"
#include "stream/order.h"
#include "stream/sleep.h"
#include "stream/stream.h"

namespace loopfast {

namespace {

/// The connection ends here because the peer wrote what no peer may write: a reset, as TCP would.
long break_connection(Stream& stream, int fd) {
    stream.shared->broken.store(1, std::memory_order_relaxed);
    stream.shared->send_to_kernel.store(1, std::memory_order_relaxed);
    forget_kernel_readiness(stream);
    sys::shutdown(fd, SHUT_RDWR);
    return -ECONNRESET;
}

long kernel_send(int fd, const Buffers& from, size_t size, int flags);

/// True when what is sent now must go to the kernel for it to say what becomes of it: the peer closed, died
/// or reset. The dead say nothing, so the kernel's word is asked for once in a while.
bool peer_is_gone(Stream& stream, int fd) {
    uint32_t kernel = cached_kernel_readiness(stream);
    // A hint: no order needed, the kernel is asked below. Harmless: only compared.
    const uint32_t closing = stream.their_words().closing.load(std::memory_order_relaxed).harmless();
    if (closing == 0 && (kernel & (kUnknown | POLLERR | POLLHUP | POLLRDHUP)) == 0 &&
        ticks() - stream.last_kernel_look.load(std::memory_order_relaxed) <
            (stream.watched.load(std::memory_order_relaxed) != 0 ? kWatchedTicks : kTicksPerMs)) [[likely]]
        return false;
    forget_kernel_readiness(stream);
    kernel = kernel_readiness(stream, fd, Freshness::kCached);
    if ((kernel & (POLLHUP | POLLERR | POLLNVAL)) != 0)
        return true;
    // It ended its direction and wants none of ours: the kernel answers that with a reset. Unless it left the
    // ring: then that was said of one of several who have the connection now, and what it left unread goes
    // first.
    if (closing == kClosingBoth && (kernel & POLLRDHUP) != 0 && !said_that_it_left(stream))
        return true;
    if (!hung_up(stream.link.load(std::memory_order_relaxed)))
        return false;
    stream.link_down.store(true, std::memory_order_relaxed);
    // So with one that left the ring and then ended its half.
    return (kernel & POLLRDHUP) != 0 && !said_that_it_left(stream);
}

}  // namespace

long send_some(Stream& stream, int fd, const Buffers& from, size_t size, int flags) {
    SharedHalf& shared = *stream.shared;
    if (!stream.out_in_ring() || stream.state() == State::kKernel) {
        advance(stream, fd);
        if (stream.state() == State::kKernel)
            return kernel_send(fd, from, size, (flags & ~kContinued) | MSG_DONTWAIT);
        if (!stream.out_in_ring()) {
            KernelSend scope(stream);
            if (!scope.allowed())
                return -EAGAIN;  // a cut is being published this very moment
            const long result = kernel_send(fd, from, size, (flags & ~kContinued) | MSG_DONTWAIT);
            scope.count(result, size);
            return result;
        }
    }
    const bool gone = shared.send_to_kernel.load(std::memory_order_relaxed) != 0 || peer_is_gone(stream, fd);
    if (!gone && stream.link_down.load(std::memory_order_relaxed) && peer_left(stream, fd)) [[unlikely]] {
        if (!return_to_kernel(stream, fd))
            return -EAGAIN;
        const long result = kernel_send(fd, from, size, (flags & ~kContinued) | MSG_DONTWAIT);
        forget_kernel_readiness(stream);
        return result;
    }
    if (!gone) {
        // After the look at the kernel above, which now and then is one at filters and captures too.
        heed_verdict(stream, fd);
        if (stream.state() == State::kKernel) [[unlikely]]
            return kernel_send(fd, from, size, (flags & ~kContinued) | MSG_DONTWAIT);
    }
    if (gone) {
        if (shared.ends_later.load(std::memory_order_relaxed) != 0) [[unlikely]] {
            // The kernel's socket can still send, and what is sent behind the end is what it must not.
            if ((flags & MSG_NOSIGNAL) == 0)
                sys::call(SYS_tgkill, sys::getpid(), my_tid(), SIGPIPE);
            return -EPIPE;
        }
        shared.send_to_kernel.store(1, std::memory_order_relaxed);
        forget_kernel_readiness(stream);
        if ((flags & kContinued) != 0)
            return -EPIPE;
        return kernel_send(fd, from, size, flags | MSG_DONTWAIT);
    }
    if (size == 0)
        return 0;

    // Room that only growth can give is taken at once by a caller that cannot wait; see ring.h.
    long sent = 0;
    RingResult result{};
    bool silent = false;
    {
        // A handler on top of this thread's own write, see ring.h, or in a knot with another one, see lock.h.
        if (shared.send_lock.take() != FamilyLock::Taken::kYes)
            return -EINTR;
        if (stream.generation != shared.generation.load(std::memory_order_relaxed) || !stream.segment) {
            shared.send_lock.unlock();
            return -EBADF;  // closed by another thread
        }
        if (stream.state() == State::kKernel || !stream.out_in_ring()) {  // left by another thread
            shared.send_lock.unlock();
            return kernel_send(fd, from, size, (flags & ~kContinued) | MSG_DONTWAIT);
        }
        RingWriter writer = stream.writer();
        const uint64_t limit = send_limit(stream);
        const bool more = (flags & MSG_MORE) != 0;
        // Relaxed: hold_back() looks at the cork again, in one order with who takes it away.
        const bool held =
            (more || shared.corked.load(std::memory_order_relaxed) != 0) && hold_back(stream, size, more);
        keep_order(stream);
        Buffers rest = from;
        do {
            result = writer.write(rest, size - static_cast<size_t>(sent), limit, true);
            sent += static_cast<long>(result.size);
            if (result.size == 0 || static_cast<size_t>(sent) == size)
                break;
            rest.skip(result.size);
        } while (result.status == RingResult::kDone);
        if (sent > 0)
            count_one(shared.counters.messages_out);
        if (!held || static_cast<size_t>(sent) != size)
            show_held(stream);
        else
            // seq_cst, as the swap of the head before it was: who shows what is held meanwhile has either
            // seen these bytes or is seen here.
            silent = stream.out().producer.held.load(std::memory_order_seq_cst).is_set();
        shared.send_lock.unlock();
    }
    if (sent > 0) {
        auto& cpu = stream.our_words().cpu;
        const auto here = static_cast<uint32_t>(current_cpu()) + 1;
        if (!cpu.load(std::memory_order_relaxed).equals(here))
            cpu.store(here, std::memory_order_relaxed);  // a hint for the peer's spinning
        if (!silent)
            wake_consumer(stream);
        attend(stream);  // of use from now on: there is something that the peer might leave unread
        // The bell found nobody: had the peer left the ring, these bytes are for the kernel to carry.
        if (stream.link_down.load(std::memory_order_relaxed) && peer_left(stream, fd)) [[unlikely]]
            return_to_kernel(stream, fd);
        return sent;
    }
    if (result.status == RingResult::kFault)
        return -EFAULT;
    if (result.status == RingResult::kBroken)
        return break_connection(stream, fd);
    shared.full_count.fetch_add(1, std::memory_order_relaxed);
    found_no_room(stream);
    return -EAGAIN;
}

void mind_full_ring(Stream& stream) {
    if (steward_hooks.found_no_room != nullptr)
        steward_hooks.found_no_room(stream);
}

uint64_t bytes_unsent(const Stream& stream) {
    // Nothing is on its way any more when the connection is over.
    if (!stream.segment || !stream.out_in_ring() ||
        (cached_kernel_readiness(stream) & (POLLHUP | POLLERR)) != 0)
        return 0;
    const uint64_t used = stream.writer().in_flight(true);
    // Harmless: only subtracted from a number that is bounded here.
    const uint64_t theirs = stream.their_words().receive_size.load(std::memory_order_relaxed).harmless();
    return used <= theirs || used > stream.segment.capacity ? 0 : used - theirs;
}

Carried carried_by_ring(const Stream& stream) {
    const SharedHalf& shared = *stream.shared;
    if (!stream.segment || shared.begun_anew.load(std::memory_order_relaxed) != 0)
        return {};
    const uint64_t out = shared.carried_out.load(std::memory_order_relaxed);
    const uint64_t in = shared.carried_in.load(std::memory_order_relaxed);
    // Harmless: numbers for the program to read, about its own connection.
    return {out != 0 ? out - 1
                     : stream.out().producer.head.load(std::memory_order_relaxed).harmless() -
                           bytes_unsent(stream),
            in != 0 ? in - 1 : stream.in().producer.head.load(std::memory_order_relaxed).harmless()};
}

namespace {

long kernel_send(int fd, const Buffers& from, size_t size, int flags) {
    note_own_call();
    note_kernel_lane_call();
    // Through the kernel directly: MSG_NOSIGNAL is the caller's choice, and SIGPIPE is raised from here.
    return from.with_parts(size, [&](msghdr& message) { return sys::sendmsg(fd, &message, flags); });
}

}  // namespace

}  // namespace loopfast
