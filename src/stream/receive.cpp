// Receiving: one attempt, on the lane that is due. A direction is finished up to its cut on the kernel lane
// before the ring is looked at, and the ring is drained before the kernel says how the connection ended.
#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/own_calls.h"
#include "base/ready.h"
#include "base/real.h"
#include "base/ticks.h"
#include "link/link.h"
#include "stream/sleep.h"
#include "stream/stream.h"

namespace loopfast {

namespace {

/// A mask: one receive in so many looks at the clock.
constexpr uint64_t kReceivesPerLook = 63;

long kernel_receive(int fd, const Buffers* to, size_t size, int flags) {
    note_own_call();
    if (to == nullptr)
        return sys::recv(fd, nullptr, size, flags | MSG_DONTWAIT | MSG_TRUNC);
    return to->with_parts(size,
                          [&](msghdr& message) { return sys::recvmsg(fd, &message, flags | MSG_DONTWAIT); });
}

/// The ring is empty: what does the kernel connection say? The ring was read before this is called and is
/// read again after the kernel spoke, so bytes written before a FIN are never missed.
long end_of_ring(Stream& stream, int fd, Buffers* to, size_t size, int flags) {
    const uint32_t ready = kernel_readiness(stream, fd, Freshness::kRecent);
    constexpr uint32_t kSomething = POLLIN | POLLRDHUP | POLLHUP | POLLERR;
    // With a low-water mark the kernel says nothing of fewer bytes, which a receive takes all the same: then
    // the link tells whether the peer goes on over the kernel.
    if ((ready & kSomething) == 0 && stream.shared->low_water.load(std::memory_order_relaxed) > 1 &&
        hung_up(stream.link.load(std::memory_order_relaxed)))
        stream.link_down.store(true, std::memory_order_relaxed);
    const bool left = stream.link_down.load(std::memory_order_relaxed) && peer_left(stream, fd);
    if (left)
        return_to_kernel(stream, fd);
    else if ((ready & kSomething) == 0)
        return -EAGAIN;
    if (stream.reader().available() != 0)
        return -EINPROGRESS;  // read the ring first
    forget_kernel_readiness(stream);
    if (stream.shared->broken.load(std::memory_order_relaxed) == 1) {
        stream.shared->broken.store(2, std::memory_order_relaxed);  // said once, then the end
        return -ECONNRESET;
    }
    const long result = kernel_receive(fd, to, size, flags);
    if (result == -ECONNRESET || result == -EPIPE || result == -ETIMEDOUT)
        stream.shared->send_to_kernel.store(1, std::memory_order_relaxed);  // said now, and only once
    // A connection that is over already (POLLHUP, with our half open) was reset, and somebody was told.
    if (result == 0 && size != 0 && (ready & POLLHUP) == 0 &&
        hung_up(stream.link.load(std::memory_order_relaxed)) && refused_by_the_dead(stream, fd)) {
        int error = 0;
        socklen_t length = sizeof error;
        sys::insisting([&] { return sys::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length); });
        return -ECONNRESET;
    }
    return result;
}

/// Takes what is in the ring, without a look at anything else. The receiving lock is held.
long take(Stream& stream, const Buffers* to, size_t size, RingReader::Mode mode, RingResult& result) {
    RingReader reader = stream.reader();
    Buffers target = to != nullptr ? *to : Buffers(nullptr, 0);
    long taken = 0;
    do {
        result = reader.read(to != nullptr ? &target : nullptr, size - static_cast<size_t>(taken), mode);
        taken += static_cast<long>(result.size);
        if (result.size == 0 || mode == RingReader::kPeek || static_cast<size_t>(taken) == size)
            break;
        target.skip(result.size);
    } while (result.status == RingResult::kDone);
    if (taken > 0 && mode == RingReader::kConsume)
        count_one(stream.shared->counters.messages_in);
    return taken;
}

RingReader::Mode mode_of(int flags) {
    return (flags & MSG_PEEK) != 0 ? RingReader::kPeek : RingReader::kConsume;
}

/// A peer that left the ring goes on over the kernel lane, and one call takes what is there on both: see
/// up_to_cut.
/// @return how much more than `taken` there was.
[[gnu::noinline]] long behind_the_ring(Stream& stream, int fd, const Buffers* to, long taken, size_t size,
                                       int flags) {
    if (!stream.link_down.load(std::memory_order_relaxed) &&
        hung_up(stream.link.load(std::memory_order_relaxed)))
        stream.link_down.store(true, std::memory_order_relaxed);
    if (!peer_left(stream, fd))
        return 0;
    Buffers rest = to != nullptr ? *to : Buffers(nullptr, 0);
    rest.skip(static_cast<size_t>(taken));
    size -= static_cast<size_t>(taken);
    const HoldIfFree hold(stream.shared->receive_lock);
    if (!hold.held() || !stream.segment)
        return 0;
    const bool peek = (flags & MSG_PEEK) != 0;
    long more = 0;
    if (!peek) {
        // What it put into the ring before it left, and after our look.
        RingResult unused{};
        more = take(stream, to != nullptr ? &rest : nullptr, size, RingReader::kConsume, unused);
        rest.skip(static_cast<size_t>(more));
        size -= static_cast<size_t>(more);
    }
    if (size == 0 || stream.reader().available() != (peek ? static_cast<uint64_t>(taken) : 0))
        return more;
    int at_mark = 0;
    if (sys::ioctl(fd, SIOCATMARK, &at_mark) == 0 && at_mark != 0)
        return more;  // urgent data ends what one call takes
    // Where there are no bytes the kernel would tell how the connection ended, once: that is for the next
    // call.
    int waiting = 0;
    if (sys::ioctl(fd, FIONREAD, &waiting) < 0 || waiting <= 0)
        return more;
    const long behind = kernel_receive(fd, to != nullptr ? &rest : nullptr, size, flags);
    forget_kernel_readiness(stream);
    return behind > 0 ? more + behind : more;
}

long from_ring(Stream& stream, int fd, Buffers* to, size_t size, int flags) {
    SharedHalf& shared = *stream.shared;
    const auto mode = mode_of(flags);
    for (;;) {
        long taken = 0;
        RingResult result{};
        {
            const HoldIfFree hold(shared.receive_lock);
            if (!hold.held())
                return -EINTR;
            if (stream.state() == State::kKernel)  // left by another thread
                return kernel_receive(fd, to, size, flags);
            if (stream.generation != shared.generation.load(std::memory_order_relaxed) || !stream.segment)
                return -EBADF;  // closed by another thread
            taken = take(stream, to, size, mode, result);
        }
        if (taken > 0) {
            if (mode == RingReader::kConsume)
                wake_producer(stream);
            if (static_cast<size_t>(taken) < size &&
                (stream.link_down.load(std::memory_order_relaxed) || said_that_it_left(stream))) [[unlikely]]
                taken += behind_the_ring(stream, fd, to, taken, size, flags);
            // Who always finds bytes never asks the kernel anything, which is where filters are looked for.
            if ((shared.counters.messages_in.load(std::memory_order_relaxed) & kReceivesPerLook) == 0)
                look_if_due();
            return taken;
        }
        if (result.status == RingResult::kFault)
            return -EFAULT;
        if (result.status == RingResult::kBroken) {
            if (shared.broken.exchange(2, std::memory_order_relaxed) == 2)
                return 0;  // the reset was said
            shared.send_to_kernel.store(1, std::memory_order_relaxed);
            forget_kernel_readiness(stream);
            sys::shutdown(fd, SHUT_RDWR);
            return -ECONNRESET;
        }
        const long end = end_of_ring(stream, fd, to, size, flags);
        if (end != -EINPROGRESS)
            return end;
    }
}

/// How many bytes of the kernel's queue certainly lie before a cut that has not been seen. One that is
/// published while we receive may have more behind it than the ring: a peer that left again at once goes on
/// over the kernel lane, and its bytes would be taken for those before the cut.
/// `result` is what a receive says where there are none.
uint64_t before_any_cut(const Stream& stream, int fd, long& result) {
    int waiting = 0;
    if (sys::ioctl(fd, FIONREAD, &waiting) < 0 || waiting <= 0) {
        // At the mark of urgent data FIONREAD counts nothing of what lies behind it. Whether there is any is
        // asked first: that the count needs no memory to put bytes into, valgrind takes for a mistake.
        char byte;
        result = sys::recv(fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT);
        if (result > 0)
            result = sys::recv(fd, nullptr, INT32_MAX, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
        if (result <= 0)
            return 0;
        waiting = static_cast<int>(result);
    }
    result = -EAGAIN;
    // Acquire orders the count before the look: what was there already cannot have been sent after the cut.
    std::atomic_thread_fence(std::memory_order_acquire);
    return stream.in().producer.cut.load(std::memory_order_acquire).equals(kNoCut)
               ? static_cast<uint64_t>(waiting)
               : 0;
}

/// On the kernel lane, and over the cut where it is reached: one call takes all that is there, since programs
/// take a short read for "nothing more" and wait for the next edge. `next` says that the ring is due now,
/// `crossed` how much of the result lies before the cut, where it reaches the cut.
long up_to_cut(Stream& stream, int fd, Buffers* to, size_t size, int flags, bool& next, size_t& crossed) {
    SharedHalf& shared = *stream.shared;
    next = false;
    crossed = 0;
    const HoldIfFree hold(shared.receive_lock);
    if (!hold.held())
        return -EINTR;
    if (!stream.segment)
        return -EBADF;
    if (stream.state() == State::kKernel)  // left by another thread: the ring is not ours any more
        return kernel_receive(fd, to, size, flags);
    // Each round but the last one saw the cut change under it, which an honest peer's does once.
    constexpr int kMostRounds = 8;
    for (int round = 0; !stream.in_in_ring(); ++round) {
        if (round == kMostRounds)
            return -EAGAIN;
        // Acquire pairs with the release in publish_cut: the cut is seen with what preceded it. Any value is
        // harmless: one that does not fit our count only keeps us on the kernel lane.
        uint64_t cut = stream.in().producer.cut.load(std::memory_order_acquire).harmless();
        const uint64_t so_far = shared.kernel_in.load(std::memory_order_relaxed);
        if (cut != kNoCut && cut - 1 == so_far) {
            shared.in_lane.store(Lane::kRing, std::memory_order_release);
            break;
        }
        long result = -EAGAIN;
        const uint64_t until_cut = cut == kNoCut      ? before_any_cut(stream, fd, result)
                                   : cut - 1 > so_far ? cut - 1 - so_far
                                                      : size;
        if (until_cut != 0)
            result = kernel_receive(fd, to, size < until_cut ? size : static_cast<size_t>(until_cut), flags);
        forget_kernel_readiness(stream);
        const bool nothing = result == -EAGAIN;
        const bool ended = result == 0;
        if (result < 0 && !nothing)
            return result;
        if (result > 0 && (flags & MSG_PEEK) == 0)
            shared.kernel_in.fetch_add(static_cast<uint64_t>(result), std::memory_order_relaxed);
        // The cut is stored after the last kernel byte was sent, so seeing it means seeing that byte: who
        // found nothing before it was published looks again; and who found the end, since the ring comes
        // before it.
        const bool was_there = cut != kNoCut;
        cut = stream.in().producer.cut.load(std::memory_order_acquire).harmless();
        if ((nothing || ended) && !was_there && cut != kNoCut)
            continue;
        if (ended)
            return 0;
        const auto received = static_cast<size_t>(nothing ? 0 : result);
        if (nothing || received == size || cut == kNoCut || cut - 1 != so_far + received)
            return result;
        Buffers rest = to != nullptr ? *to : Buffers(nullptr, 0);
        rest.skip(received);
        RingResult unused{};
        const long more =
            take(stream, to != nullptr ? &rest : nullptr, size - received, mode_of(flags), unused);
        crossed = received;
        return result + more;
    }
    next = true;
    return 0;
}

/// A peer that left the ring as soon as it had come goes on behind both its cuts.
/// Of the result, `before` bytes lie before the first.
long over_both_cuts(Stream& stream, int fd, const Buffers* to, size_t before, long result, size_t size,
                    int flags) {
    if ((flags & MSG_PEEK) == 0)
        return result + behind_the_ring(stream, fd, to, result, size, flags);
    if (!peer_left(stream, fd) || to == nullptr)
        return result;
    const HoldIfFree hold(stream.shared->receive_lock);
    if (!hold.held() || !stream.segment ||
        stream.reader().available() != static_cast<size_t>(result) - before)
        return result;
    // The kernel has both its parts in one piece: the first is looked at again, what the ring gave is passed
    // over.
    constexpr int kMostParts = 32;
    iovec parts[2 * kMostParts];
    const auto count = static_cast<size_t>(to->parts(parts, kMostParts, before));
    size_t first = 0;
    for (size_t i = 0; i < count; ++i)
        first += parts[i].iov_len;
    if (first != before)
        return result;
    Buffers rest = *to;
    rest.skip(static_cast<size_t>(result));
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count + static_cast<size_t>(rest.parts(parts + count, kMostParts,
                                                                size - static_cast<size_t>(result)));
    const long seen = sys::recvmsg(fd, &message, flags | MSG_DONTWAIT);
    return seen > static_cast<long>(before) ? result + seen - static_cast<long>(before) : result;
}

}  // namespace

long receive_some(Stream& stream, int fd, Buffers* to, size_t size, int flags) {
    if (stream.state() == State::kKernel)
        return kernel_receive(fd, to, size, flags);
    heed_verdict(stream, fd);
    if (stream.state() == State::kKernel) [[unlikely]]
        return kernel_receive(fd, to, size, flags);
    if (!stream.in_in_ring()) {
        advance(stream, fd);
        bool next;
        size_t crossed;
        long result = up_to_cut(stream, fd, to, size, flags, next, crossed);
        if (!next) {
            if (crossed != 0 && static_cast<size_t>(result) < size &&
                hung_up(stream.link.load(std::memory_order_relaxed))) {
                stream.link_down.store(true, std::memory_order_relaxed);
                result = over_both_cuts(stream, fd, to, crossed, result, size, flags);
            }
            if (result > 0 && (flags & MSG_PEEK) == 0)
                wake_producer(stream);
            return result;
        }
    }
    if (size == 0) {
        // recv of nothing waits for something all the same.
        if (stream.reader().available() != 0)
            return 0;
        const long end = end_of_ring(stream, fd, to, size, flags);
        return end == -EINPROGRESS ? 0 : end;
    }
    return from_ring(stream, fd, to, size, flags);
}

uint64_t bytes_waiting(Stream& stream, int fd) {
    int kernel = 0;
    if (sys::ioctl(fd, FIONREAD, &kernel) < 0)
        kernel = 0;
    if (!stream.segment)
        return static_cast<uint64_t>(kernel);
    uint64_t ring = 0;
    const uint64_t cut = stream.in().producer.cut.load(std::memory_order_acquire).harmless();
    if (cut != kNoCut) {
        const uint64_t size = stream.reader().available();
        ring = size <= stream.segment.capacity ? size : 0;
    }
    return static_cast<uint64_t>(kernel) + ring;
}

int rest_of_bytes(Stream& stream, int fd) {
    // Asked before the ring is looked at: what was written before a FIN is there when the FIN is.
    const int ready = ready_now(fd, POLLRDHUP);
    const bool ended = ready > 0 && (ready & POLLRDHUP) != 0 && (ready & POLLERR) == 0 &&
                       stream.shared->shut_for_reading.load(std::memory_order_relaxed) == 0;
    const uint64_t rest = bytes_waiting(stream, fd) + (ended ? 1 : 0);
    return static_cast<int>(rest < INT_MAX ? rest : INT_MAX);
}

}  // namespace loopfast
