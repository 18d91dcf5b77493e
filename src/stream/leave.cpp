// Leaving the ring again. An end leaves because it was told to (leave()), because it executed another
// program, because the descriptor moved to a process that does not have loopfast. Each side then knows all it
// has to:
//
//   - who left takes nothing out of the ring any more, so its tail stands still and is the cut: what lies
//     beyond it the other end takes back and sends over the kernel lane, before anything newer;
//   - what it had put into the ring before stays there for the other end to read; that end reads the ring
//     first and the kernel when the ring is empty, as it always does.
//
// Both sides may turn away from a direction at once: the consumer by leaving, the producer by leaving,
// closing or shutting down. Then it has to be settled who has the bytes in between. Each writes its name into
// a word of that direction, by compare-and-swap; if the consumer was first the producer takes the bytes back
// before it goes, and if the producer was first the consumer cannot go while there are any.
//
// Who leaves with bytes unread, and goes where they cannot be read out of the ring, waits for the other side
// to begin taking them back, which it says in the same word. A peer that does not, because it was stopped, or
// is killed before it comes to that, would take them with it: then the consumer keeps them, by the same word,
// and cannot go. A write that was under way then has its bytes behind what is kept; they are the producer's
// to send.
//
// The other end hears of it by the hang-up of the link, at its next call or wait, or by a bell that finds
// nobody. models/leave.pml checks this.
#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/hidden.h"
#include "base/log.h"
#include "base/ready.h"
#include "link/link.h"
#include "stream/setup.h"
#include "stream/sleep.h"
#include "stream/stream.h"

namespace loopfast {

bool peer_left(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    if (shared.peer_left.load(std::memory_order_relaxed) != 0)
        return true;
    if (!stream.link_down.load(std::memory_order_relaxed) || stream.state() != State::kFused)
        return false;
    // A peer that closed or died hangs up as well; its kernel socket has ended before its link. One that said
    // that it left is there still, whatever its new owner did to its sending half. Acquire pairs with the
    // compare-and-swap in leave(): its tail stands still.
    const bool said = said_that_it_left(stream);
    const int ready = ready_now(fd, said ? 0 : POLLRDHUP);
    if (ready < 0 || (ready & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0)
        return false;
    LOOPFAST_LOG("slot %u: the peer left the ring", stream.slot);
    shared.reason.store(static_cast<uint32_t>(Reason::kPeerNotOptedIn), std::memory_order_relaxed);
    shared.peer_left.store(1, std::memory_order_relaxed);
    forget_kernel_readiness(stream);
    return true;
}

namespace {

constexpr size_t kChunk = 16384;

/// Sends what lies between the tail of `unsent` and its head, and moves that tail. The sending lock is held.
/// `chunk` is room for a part. @return true when nothing is left.
bool send_unread(Stream& stream, int fd, Direction& unsent, unsigned char* chunk) {
    // The peer's own note of the current record is out of reach, but ours says the same: its tail is at or
    // beyond the record before the current one (ring.h), so these two place everything.
    const ProducerState& producer = stream.shared->producer;
    ConsumerState place;
    place.jump.store(producer.jump.load(std::memory_order_relaxed), std::memory_order_relaxed);
    place.previous_jump.store(producer.previous_jump.load(std::memory_order_relaxed),
                              std::memory_order_relaxed);
    RingReader unread(unsent, place, stream.segment.data(stream.side()), stream.segment.capacity);
    // Counted once: the tail lies in memory that the peer can still write, and one that puts it back again
    // and again would keep us here.
    uint64_t left = unread.available();
    if (left > stream.segment.capacity)
        return true;  // nonsense: there is nothing that could be sent for it
    // Nor does one that shows it byte by byte: an honest one's come in so many pieces, or the kernel is full.
    constexpr int kMostPieces = 1024;
    for (int piece = 0; piece < kMostPieces; ++piece) {
        const iovec part{chunk, kChunk};
        Buffers to(&part, 1);
        const RingResult seen = unread.read(&to, left < kChunk ? left : kChunk, RingReader::kPeek);
        // A connection that was reset keeps its error for who calls next: a send would collect it.
        if (seen.size == 0)
            return true;
        const int ready = ready_now(fd, 0);
        if (ready < 0)
            return ready == -EBADF;
        if ((ready & (POLLERR | POLLHUP)) != 0)
            return true;
        const long sent = sys::send(fd, chunk, seen.size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0) {
            if (sent == -EAGAIN || sent == -EINTR || sent == -ENOMEM || sent == -ENOBUFS)
                return false;
            return true;  // the connection has ended; who calls next hears it from the kernel
        }
        stream.shared->kernel_out.fetch_add(static_cast<uint64_t>(sent), std::memory_order_relaxed);
        unread.read(nullptr, static_cast<size_t>(sent), RingReader::kConsume);
        left -= static_cast<uint64_t>(sent);
    }
    return left == 0;
}

/// Where in our direction begins what we have to take back: the peer's tail, or where that begins what it did
/// not keep.
uint64_t unsent_from(Stream& stream) {
    const Direction& direction = stream.out();
    // Acquire pairs with the compare-and-swap in keeps_unread, after which the peer reads on.
    const uint64_t word = direction.producer.turned_away.load(std::memory_order_acquire).harmless();
    return is_kept(word) ? word >> kKeptShift
                         : direction.consumer.tail.load(std::memory_order_relaxed).harmless();
}

/// The peer keeps what it saw. What came behind that, in a write that was under way, is ours: the peer never
/// looks at it, and how far we are stands in the word.
bool send_behind_kept(Stream& stream, int fd, unsigned char* chunk) {
    Direction& direction = stream.out();
    Direction behind{};
    behind.consumer.tail.store(unsent_from(stream), std::memory_order_relaxed);
    behind.producer.head.store(direction.producer.head.load(std::memory_order_relaxed).harmless(),
                               std::memory_order_relaxed);
    for (int i = 0; i < 2; ++i)
        behind.producer.jump[i].store(direction.producer.jump[i].load(std::memory_order_relaxed).harmless(),
                                      std::memory_order_relaxed);
    const bool all = send_unread(stream, fd, behind, chunk);
    const uint64_t until = behind.consumer.tail.load(std::memory_order_relaxed).harmless();
    // Release pairs with the acquire in unsent_from, of whoever has the sending lock next.
    direction.producer.turned_away.store(kept_until(until), std::memory_order_release);
    return all;
}

/// Sends what the peer did not take out of the ring over the kernel lane. The sending lock is held.
/// @return true when nothing is left.
bool take_back(Stream& stream, int fd) {
    show_held(stream);
    if (stream.writer().in_flight(true) == 0)
        return true;
    // One of both: see keeps_unread. seq_cst as the names in it. A peer that left without a word has no say.
    auto& word = stream.out().producer.turned_away;
    word.replace(kConsumerLeft, kTakingBack, std::memory_order_seq_cst);
    const bool kept = is_kept(word.load(std::memory_order_acquire).harmless());
    if (kept && !has_unsent(stream))
        return true;
    // From here on we move the peer's tail ourselves, and the kernel counts what lies beyond it.
    auto& carried = stream.shared->carried_out;
    if (carried.load(std::memory_order_relaxed) == 0)
        carried.store(unsent_from(stream) + 1, std::memory_order_relaxed);
    // Not on the stack, which may be a signal handler's. Where there is no memory: later.
    void* const chunk =
        sys::mmap(nullptr, kChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sys::mmap_failed(chunk))
        return false;
    auto* const room = static_cast<unsigned char*>(chunk);
    const bool all = kept ? send_behind_kept(stream, fd, room) : send_unread(stream, fd, stream.out(), room);
    sys::munmap(chunk, kChunk);
    return all;
}

/// Whether `who` turned away from the direction before the other side did.
bool first_to_turn_away(Direction& direction, uint64_t who) {
    // seq_cst: one order for both sides, with what they put into the ring or took out of it before.
    return direction.producer.turned_away.replace(kBothThere, who, std::memory_order_seq_cst) ||
           direction.producer.turned_away.load(std::memory_order_seq_cst).equals(who);
}

}  // namespace

bool return_to_kernel(Stream& stream, int fd) {
    FamilyLock& lock = stream.shared->send_lock;
    // In a handler on top of a section, which may be what the lock's owner waits for: later, if it is not
    // free.
    if (held_locks != 0 ? lock.try_lock() != FamilyLock::Taken::kYes : !lock.lock())
        return false;
    // Or we have left ourselves meanwhile, which our steward took for the peer's hang-up: then what lies in
    // the ring is the peer's to read, and what we send is on its way already.
    const bool done =
        !stream.segment || stream.state() == State::kKernel || !stream.out_in_ring() || take_back(stream, fd);
    lock.unlock();
    forget_kernel_readiness(stream);
    return done;
}

bool finish_output(Stream& stream, int fd) {
    if (stream.state() == State::kFused)
        show_held(stream);  // before our name is in the word
    // As much as the kernel takes: a close does not wait.
    return stream.state() != State::kFused || !stream.out_in_ring() ||
           first_to_turn_away(stream.out(), kProducerDone) || return_to_kernel(stream, fd);
}

namespace {

/// Our name is in the word of the peer's direction, and bytes of it are unread. A peer that ends it from now
/// on sends these again before its end. So an end that is there while they are was one that did not look, a
/// killed one's, between our look at it and now: then nobody will, and our name is taken back.
bool ended_without_a_word(Stream& stream, int fd) {
    const int ready = ready_now(fd, POLLRDHUP);
    if (ready >= 0 && (ready & (POLLRDHUP | POLLHUP | POLLERR)) == 0)
        return false;
    show_end(stream);
    if (stream.reader().available() == 0)
        return false;
    stream.in().producer.turned_away.replace(kConsumerLeft, kBothThere, std::memory_order_seq_cst);
    return true;
}

/// The peer has begun to take back what is unread, from `tail` on. Waits as long as it goes on with that.
/// @return true when it was killed in the middle: then all of it lies in the ring still, and is ours again.
bool was_killed_meanwhile(Stream& stream, int fd, uint64_t tail, int in_kernel) {
    constexpr int kRoundsWithoutAny = 500;
    constexpr int kMostRounds = 5000;
    Direction& direction = stream.in();
    const uint64_t until = stream.reader().seen_head();
    uint64_t before = tail;
    int without = 0;
    for (int round = 0; round < kMostRounds && without < kRoundsWithoutAny; ++round) {
        // The end first: what it had moved by then it has moved. The tail is only compared; acquire keeps the
        // count of what it sent, below, behind it.
        const int ready = ready_now(fd, POLLRDHUP);
        const bool ended = ready < 0 || (ready & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
        const uint64_t now = direction.consumer.tail.load(std::memory_order_acquire).harmless();
        // Or beyond it: what was held back comes along.
        if (now - tail >= until - tail)
            return false;
        if (ended) {
            // An orderly end comes after the last byte. Those that it has sent are here twice.
            int waiting = 0;
            if ((ready & (POLLHUP | POLLERR)) != 0 || sys::ioctl(fd, FIONREAD, &waiting) < 0 ||
                !direction.producer.turned_away.replace(kTakingBack, kBothThere, std::memory_order_seq_cst))
                return false;
            for (int twice = waiting - in_kernel; twice > 0;) {
                const long gone =
                    sys::recv(fd, nullptr, static_cast<size_t>(twice), MSG_TRUNC | MSG_DONTWAIT);
                if (gone <= 0)
                    break;
                twice -= static_cast<int>(gone);
            }
            direction.consumer.tail.store(tail, std::memory_order_relaxed);
            LOOPFAST_LOG("slot %u keeps what is unread: the peer was killed", stream.slot);
            return true;
        }
        without = now == before ? without + 1 : 0;
        before = now;
        sys::sleep_ns(100'000);
    }
    return false;
}

/// When a peer was waited for in vain: the next ones get less. Relaxed: a hint, which nothing else hangs on.
std::atomic<int64_t> waited_in_vain{0};

/// Our name is in the word of the peer's direction: what of that is unread is ours again, up to here. Before
/// the receiving lock is let go of: nobody takes what lies behind it.
/// @return false when the peer has begun to take it back.
bool keep(Stream& stream) {
    const uint64_t head = stream.reader().seen_head();
    // seq_cst as the names in the word; the peer's claim in take_back is the other one.
    if (!stream.in().producer.turned_away.replace(kConsumerLeft, kept_until(head), std::memory_order_seq_cst))
        return false;
    stream.shared->consumer.limit.store(head + 1, std::memory_order_relaxed);
    stream.link_down.store(true, std::memory_order_relaxed);
    stream.shared->peer_left.store(1, std::memory_order_relaxed);
    LOOPFAST_LOG("slot %u keeps what is unread", stream.slot);
    return true;
}

/// Our name is in the word of the peer's direction, and bytes of it are unread, which the peer is to take
/// back. Waits until it has begun, or does not wait at all. @return true when it has not: we keep them.
bool keeps_unread(Stream& stream, int fd, Unread unread, uint64_t tail, int in_kernel) {
    constexpr int64_t kPatience = 500'000'000;
    constexpr int64_t kLittlePatience = 10'000'000;
    constexpr int64_t kMemory = 2'000'000'000;
    const int link = stream.link.load(std::memory_order_relaxed);
    const bool waits = unread == Unread::kWaitedFor;
    // Its steward wakes for this, and begins; so who keeps at once comes first. (What is published in between
    // and rings a bell that we still have: the steward finds it.)
    if (waits)
        sys::shutdown(link, SHUT_RDWR);
    // A publication that is under way is to find a sleeper that no bell reaches, as in leave().
    stream.in().sleep.consumer.exchange(kAlwaysRing, std::memory_order_seq_cst);
    auto& word = stream.in().producer.turned_away;
    const int64_t begin = now_ns();
    const bool hurried = begin - waited_in_vain.load(std::memory_order_relaxed) < kMemory;
    const int64_t deadline = begin + (hurried ? kLittlePatience : kPatience);
    bool kept = false;
    // Acquire pairs with the peer's compare-and-swap in take_back.
    while (!kept && word.load(std::memory_order_acquire).equals(kConsumerLeft)) {
        if (ended_without_a_word(stream, fd)) {
            kept = true;  // nobody is there any more who could write: the ring itself can be read
        } else if (waits && now_ns() < deadline) {
            sys::sleep_ns(100'000);
        } else {
            if (waits)
                waited_in_vain.store(now_ns(), std::memory_order_relaxed);
            kept = keep(stream);
        }
    }
    if (!waits)
        sys::shutdown(link, SHUT_RDWR);
    return kept || was_killed_meanwhile(stream, fd, tail, in_kernel);
}

/// The part of leaving that needs both locks: no copy is under way, and no setup either.
bool leave_locked(Stream& stream, int fd, Reason reason, Unread unread) {
    SharedHalf& shared = *stream.shared;
    const HoldBoth both(shared.receive_lock, shared.send_lock);
    if (!both.held())
        return false;
    // Unread bytes of a peer that is gone nobody can send again: then we must go on reading them.
    const int ready = ready_now(fd, POLLRDHUP);
    const bool ended = ready < 0 || (ready & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
    const bool peer_left = shared.peer_left.load(std::memory_order_relaxed) != 0;
    show_held(stream);
    if (ended || peer_left)
        show_end(stream);
    if ((ended || peer_left) && stream.reader().available() != 0)
        return false;
    // Our direction first: while bytes of it have to go back through us, nothing is changed.
    bool peer_first = false;
    if (stream.out_in_ring())
        peer_first = peer_left || !first_to_turn_away(stream.out(), kProducerDone);
    if (peer_first && !take_back(stream, fd))
        return false;
    // Before our name is there: the peer moves our tail from then on.
    const uint64_t tail = stream.in().consumer.tail.load(std::memory_order_relaxed).harmless();
    int in_kernel = 0;
    if (stream.reader().available() != 0)
        sys::ioctl(fd, FIONREAD, &in_kernel);
    shared.carried_in.store(tail + 1, std::memory_order_relaxed);
    const bool ours = first_to_turn_away(stream.in(), kConsumerLeft);
    if (stream.reader().available() != 0 &&
        (!ours || ended_without_a_word(stream, fd) ||
         (unread != Unread::kToThePeer && keeps_unread(stream, fd, unread, tail, in_kernel)))) {
        // The peer turned away first, or died, or stands still, and what it left here only we can read. What
        // we send from now on goes behind the ring all the same: it may be on its way out too, and waits for
        // us to come to an end.
        if (stream.out_in_ring() && !peer_first)
            shared.out_lane.store(Lane::kKernelAgain, std::memory_order_release);
        shared.carried_in.store(0, std::memory_order_relaxed);
        return false;
    }
    refuse(stream, reason);
    return true;
}

}  // namespace

bool leave(Stream& stream, int fd, Reason reason, Unread unread) {
    // A setup that another thread is in would store its own outcome over ours.
    if (!hold_setup(stream))
        return false;
    const State state = stream.state();
    if (state != State::kProposed && state != State::kFused) {
        if (state != State::kIdle && state != State::kKernel)
            refuse(stream, reason);
        release_setup(stream);
        return true;
    }
    const bool left = leave_locked(stream, fd, reason, unread);
    release_setup(stream);
    if (!left)
        return false;
    if (set_hooks.unclaim != nullptr && stream.set_entries.load(std::memory_order_relaxed) != 0)
        set_hooks.unclaim(stream);
    // Shut down and not closed: relatives hold it as well, and whoever of us sleeps on it must come out and
    // look at the state. It is closed with the stream.
    sys::shutdown(stream.link.load(std::memory_order_relaxed), SHUT_RDWR);
    // After that: the next publication is to find a sleeper that no bell reaches, see send_some.
    stream.in().sleep.consumer.exchange(kAlwaysRing, std::memory_order_seq_cst);
    LOOPFAST_LOG("slot %u left the ring: %s", stream.slot, reason_name(static_cast<int>(reason)));
    return true;
}

}  // namespace loopfast
