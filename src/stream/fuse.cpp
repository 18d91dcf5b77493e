// On the way to the ring: offer and look, proof, proposal, confirmation, cut.
//
// The rule that makes the change safe with other threads about: a segment is put in place only while no
// thread is inside a kernel receive or a kernel wait on this stream, since it would not hear of bytes in the
// ring; and a cut is published only while no thread is inside a kernel send, since its bytes are not counted
// yet. Both are agreed on as Dekker did: each side announces itself, then looks at the other.
// models/handover.pml checks it. Every failure here leaves the connection where it is: on the kernel lane.
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/apart.h"
#include "base/hidden.h"
#include "base/log.h"
#include "base/small_stack.h"
#include "link/identity.h"
#include "link/link.h"
#include "policy/policy.h"
#include "stream/counters.h"
#include "stream/experience.h"
#include "stream/proof.h"
#include "stream/setup.h"
#include "stream/sleep.h"
#include "stream/stream.h"

namespace loopfast {

namespace {

/// A connector that mostly receives offers after this many bytes, whatever it sent.
constexpr uint64_t kOfferAfterReceiving = 32 * 1024;
/// The acceptor looks again after four times as many bytes, this often.
constexpr uint64_t kLookGrowth = 4;
constexpr uint32_t kMostLooks = 12;
/// An offer stands at least this long and for this many calls: an acceptor may have a child that saves its
/// data, and not be able to take it meanwhile.
constexpr uint32_t kOfferCalls = 4096;
constexpr int64_t kOfferTime = 10'000'000'000;
constexpr uint32_t kStepsAside = 16;

bool connected(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    if (shared.remote.family != 0)
        return true;
    Endpoint local;
    Endpoint remote;
    if (endpoints_of(fd, local, remote) < 0)
        return false;
    shared.local = local;
    shared.remote = remote;
    return true;
}

Reason not_tcp(int fd) {
    int protocol = 0;
    socklen_t size = sizeof protocol;
    const int result = sys::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
    if (result == -ENOMEM || result == -ENOBUFS)
        return Reason::kLimit;
    return result == 0 && protocol == IPPROTO_TCP ? Reason::kNone : Reason::kNotTcp;
}

/// kNone if this connection may be fused, as far as this end can tell by itself.
Reason objection_to(Stream& stream, int fd) {
    const SharedHalf& shared = *stream.shared;
    if (setups_forbidden())
        return Reason::kRestricted;
    if (const Reason reason = not_tcp(fd); reason != Reason::kNone)
        return reason;
    if (!is_local(shared.local, shared.remote) || shared.local == shared.remote)
        return Reason::kNotLocal;
    if (needs_kernel(fd))
        return Reason::kOption;
    if (set_hooks.lost_sight != nullptr && set_hooks.lost_sight(stream))
        return Reason::kLimit;
    if (stack_is_small())  // for the questions that follow
        return Reason::kLimit;
    if (const Reason reason = led_astray(stream, fd, true); reason != Reason::kNone)
        return reason;
    return forbidden(stream, fd);
}

bool eligible(Stream& stream, int fd) {
    const Reason reason = objection_to(stream, fd);
    if (reason != Reason::kNone)
        refuse(stream, reason);
    return reason == Reason::kNone;
}

/// `cookie` is the kernel's socket's; the options have been read.
void install(Stream& stream, const MappedSegment& segment, int link, uint64_t cookie) {
    give_addresses_back(stream.segment, segment);
    stream.segment.install(segment);
    stream.cookie = cookie;
    stream.link.store(link, std::memory_order_relaxed);
    forget_kernel_readiness(stream);
    stream.our_words().receive_size.store(stream.shared->receive_size.load(std::memory_order_relaxed),
                                          std::memory_order_relaxed);
}

uint64_t capacity_for(const SharedHalf& shared) {
    const uint64_t wanted = shared.send_size.load(std::memory_order_relaxed) +
                            shared.receive_size.load(std::memory_order_relaxed);
    uint64_t capacity = kDefaultCapacity;
    while (capacity < wanted && capacity < kLargestCapacity)
        capacity *= 2;
    return capacity;
}

/// A page is charged to the control group of whoever touches it first, and a peer may let its positions
/// wander over pages that it never touched. So a segment may be as large as our own sizes ask for, or so much
/// in each direction, which is what the kernel's tuning would let a TCP connection hold, within a factor of
/// three.
constexpr uint64_t kMostFromPeer = 16 * 1024 * 1024;

bool too_large(const Stream& stream, const MappedSegment& segment) {
    return segment.capacity > kMostFromPeer && segment.capacity > capacity_for(*stream.shared);
}

/// Publishes our cut: from here on what we send goes into the ring.
bool publish_cut(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    // Whether a relative is inside a kernel send is known to that relative alone.
    if (count_holders(shared) != 1)
        return false;
    // Dekker with KernelSend: announce, then look. seq_cst on both sides.
    stream.cutting.store(1, std::memory_order_seq_cst);
    bool done = false;
    if (stream.kernel_senders.load(std::memory_order_seq_cst) == 0) {
        if (sent_count_agrees(stream, fd)) {
            // Release pairs with the acquire in receive_some: who sees the cut sees all that went before.
            stream.out().producer.cut.store(shared.kernel_out.load(std::memory_order_relaxed) + 1,
                                            std::memory_order_release);
            shared.out_lane.store(Lane::kRing, std::memory_order_release);
            done = true;
        } else {
            shared.reason.store(static_cast<uint32_t>(Reason::kCounters), std::memory_order_relaxed);
        }
    }
    stream.cutting.store(0, std::memory_order_seq_cst);
    return done;
}

}  // namespace

void refuse(Stream& stream, Reason reason) {
    SharedHalf& shared = *stream.shared;
    LOOPFAST_LOG("slot %u stays on the kernel lane: %s", stream.slot, reason_name(static_cast<int>(reason)));
    shared.reason.store(static_cast<uint32_t>(reason), std::memory_order_relaxed);
    withdraw_offer(stream);
    // seq_cst, as all stores of the state: KernelReceive and KernelSend announce themselves and then look at
    // it.
    shared.state.store(State::kKernel, std::memory_order_seq_cst);
}

void withdraw_offer(Stream& stream) {
    end_meeting(stream);
    // Exchanged: a thread that closes the descriptor may come on top of one that confirms.
    close_offer(stream.offer.exchange(-1, std::memory_order_relaxed));
    State offered = State::kOffered;
    stream.shared->state.compare_exchange_strong(offered, State::kCandidate, std::memory_order_seq_cst);
}

void begin_connection(Stream& stream, int fd, Role role, uint64_t threshold) {
    SharedHalf& shared = *stream.shared;
    stream.role = role;
    shared.role.store(static_cast<uint32_t>(role), std::memory_order_relaxed);
    stream.threshold = threshold;
    shared.reason.store(static_cast<uint32_t>(Reason::kBelowThreshold), std::memory_order_relaxed);
    stream.next_look_in = threshold;
    stream.next_look_out = threshold == 0 ? 0 : 2 * kOfferAfterReceiving;
    shared.state.store(State::kCandidate, std::memory_order_seq_cst);
    if (threshold == 0) {
        if (role == Role::kConnector)
            before_kernel_send(stream, fd, 1);
        else
            after_kernel_call(stream, fd);
    }
}

namespace {

/// Connector: listens under the connection's name.
void offer(Stream& stream, int fd) {
    SetupScope scope(stream, fd);
    if (!scope.entered() || stream.state() != State::kCandidate || !connected(stream, fd))
        return;
    const Room room = room_for_offer();
    if (room == Room::kLater) {
        stream.shared->reason.store(static_cast<uint32_t>(Reason::kLimit), std::memory_order_relaxed);
        return;
    }
    if (!eligible(stream, fd))
        return;
    stream.offer = room == Room::kYes ? make_offer(tuple_of(stream)) : -1;
    if (stream.offer < 0) {
        refuse(stream, stream.offer.exchange(-1) == -2 ? Reason::kRestricted : Reason::kLimit);
        return;
    }
    stream.offer_made = now_ns();
    stream.shared->reason.store(static_cast<uint32_t>(Reason::kPeerNotOptedIn), std::memory_order_relaxed);
    stream.shared->state.store(State::kOffered, std::memory_order_seq_cst);
}

/// Connector: was the offer taken, and by whom? With a proven acceptor: take its proposal.
void confirm(Stream& stream, int fd) {
    SetupScope scope(stream, fd);
    if (!scope.entered() || stream.state() != State::kOffered)
        return;
    SharedHalf& shared = *stream.shared;
    const Met how = meet_acceptor(stream, fd);
    if (how == Met::kEnding)
        shared.reason.store(static_cast<uint32_t>(Reason::kEnding), std::memory_order_relaxed);
    if (how != Met::kProven)
        return;
    Exclusive exclusive(stream, fd, State::kOffered);
    if (!exclusive.granted())
        return;
    Message proposal;
    int memory = -1;
    const Received received = receive_message(stream.pending_link, kProposal, proposal, memory);
    if (received == Received::kNothing)
        return;
    MappedSegment segment;
    if (received == Received::kMessage && proposal.acceptor_cookie == stream.peer_cookie &&
        proposal.connector_cookie == cookie_of(fd))
        segment = map_segment(memory, stream.segment);
    // What is no segment may be anything, and take any time to close.
    if (segment)
        sys::close(memory);
    else
        close_apart(memory);
    if (!segment) {
        LOOPFAST_LOG("slot %u: the proposal is not one", stream.slot);
        refuse(stream, Reason::kIdentity);
        exclusive.settle();
        return;
    }
    if (too_large(stream, segment)) {
        drop_segment(segment, stream.segment);
        refuse(stream, Reason::kLimit);
        exclusive.settle();
        return;
    }
    if (!received_count_agrees(stream, fd) || !sent_count_agrees(stream, fd)) {
        drop_segment(segment, stream.segment);
        refuse(stream, Reason::kCounters);
        exclusive.settle();
        return;
    }
    if (!read_options(stream, fd)) {
        drop_segment(segment, stream.segment);
        refuse(stream, Reason::kLimit);
        exclusive.settle();
        return;
    }
    const int link = stream.pending_link.exchange(-1, std::memory_order_relaxed);
    end_meeting(stream);
    close_offer(stream.offer.exchange(-1, std::memory_order_relaxed));
    install(stream, segment, link, proposal.connector_cookie);
    // Release pairs with the acquire in advance(): who sees this sees our options too.
    stream.segment.segment->side[0].confirmed.store(1, std::memory_order_release);
    shared.reason.store(static_cast<uint32_t>(Reason::kNone), std::memory_order_relaxed);
    shared.state.store(State::kFused, std::memory_order_seq_cst);
    exclusive.settle();
    publish_cut(stream, fd);
    send_note(link, Note::kBell);
    attend(stream);
    LOOPFAST_LOG("slot %u fused as connector, peer process %d", stream.slot, stream.peer_pid);
}

/// Acceptor: is there an offer for this connection? Then say hello. @return false: not now.
bool look(Stream& stream, int fd) {
    SetupScope scope(stream, fd);
    SharedHalf& shared = *stream.shared;
    if (!scope.entered() || stream.state() != State::kCandidate || !connected(stream, fd))
        return true;
    if (!held_by_us_alone(stream) || room_for_link() == Room::kLater)
        return false;
    // The questions cost more than to see that there is no offer. A child that was forked for one connection,
    // whose client has no loopfast, should not pay for them; the second look asks in any case, so that the
    // reason is known.
    const bool ask_later = stream.offer_calls == 0 && !has_judged() && !setups_forbidden() &&
                           is_local(shared.local, shared.remote);
    if (!ask_later && !eligible(stream, fd))
        return true;
    int link = -1;
    switch (find_offer(tuple_of(stream), link)) {
    case Found::kNobody:
        shared.reason.store(static_cast<uint32_t>(Reason::kPeerNotOptedIn), std::memory_order_relaxed);
        return true;
    case Found::kTaken:  // by a stranger, who has no other use for it than to keep us away
    case Found::kNoRoom:
        refuse(stream, Reason::kLimit);
        return true;
    case Found::kForbidden:
        refuse(stream, Reason::kRestricted);
        return true;
    case Found::kYes:
        break;
    }
    if (ask_later && !eligible(stream, fd)) {
        close_link(link, true);
        return true;
    }
    Reason reason;
    if (!greet(stream, fd, link, reason)) {
        close_link(link, true);
        refuse(stream, reason);
        return true;
    }
    stream.pending_link.store(link, std::memory_order_relaxed);
    return true;
}

/// Acceptor: it has looked often enough, unless somebody is there now.
void look_no_more(Stream& stream, int fd) {
    SetupScope scope(stream, fd);
    if (!scope.entered() || stream.state() != State::kCandidate || stream.pending_link >= 0)
        return;
    const uint32_t reason = stream.shared->reason.load(std::memory_order_relaxed);
    refuse(stream,
           reason == static_cast<uint32_t>(Reason::kIdentity) ? Reason::kIdentity : Reason::kPeerNotOptedIn);
}

/// Acceptor: makes the segment and sends it, with our sign, to the proven connector. The setup is ours alone.
bool send_segment(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    const uint64_t cookie = cookie_of(fd);
    if (cookie == 0 || !read_options(stream, fd))
        return false;
    int memory = -1;
    const MappedSegment segment = create_segment(capacity_for(shared), memory, stream.segment);
    if (!segment)
        return false;
    const int link = stream.pending_link.exchange(-1, std::memory_order_relaxed);
    install(stream, segment, link, cookie);
    const bool sent = show_sign(stream, fd) &&
                      send_message(link, message_of(kProposal, stream.peer_cookie, cookie), memory);
    sys::close(memory);
    if (sent)
        return true;
    hide_sign(stream);
    stream.link.store(-1, std::memory_order_relaxed);
    // Not unmapped: a wait in another thread, whose set took the stream over just now, may be looking at it.
    retire_segment(stream.segment);
    close_link(link, true);
    return false;
}

/// Acceptor: the connector on the pending link, is it proven? Then propose.
void propose(Stream& stream, int fd) {
    SetupScope scope(stream, fd);
    SharedHalf& shared = *stream.shared;
    if (!scope.entered() || stream.state() != State::kCandidate || stream.pending_link < 0)
        return;
    switch (meet_connector(stream, fd)) {
    case Met::kNotYet:
        return;
    case Met::kGone:  // it may offer again: the next look will tell
        shared.reason.store(static_cast<uint32_t>(Reason::kPeerNotOptedIn), std::memory_order_relaxed);
        return;
    case Met::kEnding:
        shared.reason.store(static_cast<uint32_t>(Reason::kEnding), std::memory_order_relaxed);
        return;
    case Met::kStranger:
        // Or a connector that withdrew its offer, to fork, just when we looked. So not for good: the looks
        // are counted, and a stranger gains nothing by them.
        shared.reason.store(static_cast<uint32_t>(Reason::kIdentity), std::memory_order_relaxed);
        return;
    case Met::kProven:
        break;
    }
    if (!held_by_us_alone(stream))
        return;                 // not now; the next call comes here again
    if (!eligible(stream, fd))  // what was true at the look may not be now
        return;
    Exclusive exclusive(stream, fd, State::kCandidate);
    if (!exclusive.granted())
        return;
    if (!received_count_agrees(stream, fd)) {
        refuse(stream, Reason::kCounters);
    } else if (!send_segment(stream, fd)) {
        refuse(stream, Reason::kLimit);
    } else {
        stream.stage = Stage::kNobody;
        shared.state.store(State::kProposed, std::memory_order_seq_cst);
        attend(stream);
        LOOPFAST_LOG("slot %u proposed as acceptor, peer process %d", stream.slot, stream.peer_pid);
    }
    exclusive.settle();
}

}  // namespace

namespace {

/// Whether the connector's next step is worth a system call now.
bool step_due(Stream& stream) {
    if (stream.pending_link.load(std::memory_order_relaxed) >= 0)
        return stream.stage == Stage::kProven || meeting_due(stream);
    const uint32_t calls = stream.offer_calls;
    return calls <= 4 || (calls & (calls - 1)) == 0;
}

}  // namespace

void before_kernel_send(Stream& stream, int fd, size_t size) {
    if (stream.role != Role::kConnector)
        return;
    const State state = stream.state();
    if (state == State::kCandidate &&
        stream.shared->kernel_out.load(std::memory_order_relaxed) + size > stream.threshold &&
        may_be_worth_it(stream))
        offer(stream, fd);
    // Before these bytes wake the acceptor, which then finds what we have to say: one exchange less.
    else if (state == State::kOffered && step_due(stream))
        confirm(stream, fd);
}

void after_kernel_call(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    const State state = stream.state();
    if (state == State::kOffered) {
        const uint32_t calls = ++stream.offer_calls;
        if (step_due(stream))
            confirm(stream, fd);
        if (stream.stage == Stage::kProven && stream.state() == State::kOffered &&
            (stream.kernel_readers.load(std::memory_order_relaxed) |
             stream.kernel_senders.load(std::memory_order_relaxed)) != 0 &&
            stream.steps_aside < kStepsAside) {
            // The proven acceptor waits, but another thread of ours is in the kernel. It comes out soon if it
            // is busy, and confirms if we are not inside by then.
            ++stream.steps_aside;
            sys::sleep_ns(50'000);
        }
        if (calls >= kOfferCalls && stream.pending_link < 0 && stream.state() == State::kOffered &&
            now_ns() - stream.offer_made > kOfferTime) {
            SetupScope scope(stream, fd);
            if (scope.entered() && stream.state() == State::kOffered)
                refuse(stream,
                       shared.reason.load(std::memory_order_relaxed) == static_cast<uint32_t>(Reason::kLimit)
                           ? Reason::kLimit
                           : Reason::kPeerNotOptedIn);
        }
        return;
    }
    if (state != State::kCandidate)
        return;
    const uint64_t in = shared.kernel_in.load(std::memory_order_relaxed);
    if (stream.role == Role::kConnector) {
        if (in > kOfferAfterReceiving + stream.threshold && may_be_worth_it(stream))
            offer(stream, fd);
        return;
    }
    if (stream.pending_link >= 0) {
        if (stream.stage == Stage::kProven || meeting_due(stream))
            propose(stream, fd);
        return;
    }
    const uint64_t out = shared.kernel_out.load(std::memory_order_relaxed);
    const bool by_in = in > stream.next_look_in || (stream.threshold == 0 && stream.offer_calls == 0);
    if ((!by_in && out <= stream.next_look_out) || !may_be_worth_it(stream))
        return;
    // Also where each look found somebody, who went away again.
    if (stream.offer_calls > kMostLooks) {
        look_no_more(stream, fd);
        return;
    }
    if (!look(stream, fd))
        return;
    // One look settles it for this many bytes; the next after four times as many.
    if (by_in)
        stream.next_look_in = in == 0 ? 0 : in * kLookGrowth;
    if (out > stream.next_look_out)
        stream.next_look_out = out * kLookGrowth;
    if (++stream.offer_calls > kMostLooks)
        look_no_more(stream, fd);
}

namespace {

/// A relative that was killed on its way out of a kernel receive, which is when a signal ends a process, has
/// taken bytes and not counted them: by our count there would be more to come on the kernel lane for ever.
void recount_received(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    const auto missing = [&] {
        // Harmless: compared with what the kernel says.
        const uint64_t cut = stream.in().producer.cut.load(std::memory_order_acquire).harmless();
        const uint64_t so_far = shared.kernel_in.load(std::memory_order_relaxed);
        return cut != kNoCut && cut - 1 > so_far ? cut - 1 : 0;
    };
    if (!stream.segment || missing() == 0)
        return;
    // Under the lock nobody who lives is between the receive and its count; but we are, in a handler on top
    // of it. Who finds it taken leaves it: there is somebody alive who receives.
    if (shared.receive_lock.try_lock() != FamilyLock::Taken::kYes)
        return;
    const uint64_t end = stream.segment ? missing() : 0;
    if (end != 0 && received_at_least(fd, end))
        shared.kernel_in.store(end, std::memory_order_relaxed);
    shared.receive_lock.unlock();
}

}  // namespace

void advance(Stream& stream, int fd) {
    const State state = stream.state();
    if (state != State::kProposed && state != State::kFused)
        return;
    if (!stream.in_in_ring())
        recount_received(stream, fd);
    const auto moved = [&] {
        return stream.shared->out_lane.load(std::memory_order_acquire) != Lane::kKernel;
    };
    if (moved())
        return;
    // Not yet confirmed: most calls of an acceptor that waits for it end here, without a setup.
    if (stream.role == Role::kAcceptor && !stream.link_down.load(std::memory_order_relaxed) &&
        stream.segment && !stream.segment.segment->side[0].confirmed.load(std::memory_order_relaxed).is_set())
        return;
    SetupScope scope(stream, fd);
    if (!scope.entered() || moved() || !stream.segment)
        return;
    SharedHalf& shared = *stream.shared;
    if (stream.role == Role::kAcceptor) {
        // Acquire pairs with the release in confirm().
        if (!stream.segment.segment->side[0].confirmed.load(std::memory_order_acquire).is_set()) {
            if (stream.link_down.load(std::memory_order_relaxed))
                refuse(stream, Reason::kPeerNotOptedIn);  // it was offered, and declined
            return;
        }
        hide_sign(stream);
        if (shared.state.load(std::memory_order_relaxed) == State::kProposed) {
            shared.reason.store(static_cast<uint32_t>(Reason::kNone), std::memory_order_relaxed);
            shared.state.store(State::kFused, std::memory_order_seq_cst);
        }
    }
    if (shared.reason.load(std::memory_order_relaxed) == static_cast<uint32_t>(Reason::kCounters))
        return;  // our direction stays on the kernel lane
    if (publish_cut(stream, fd))
        send_note(stream.link.load(std::memory_order_relaxed), Note::kBell);
}

}  // namespace loopfast
