// See proof.h.
#include "stream/proof.h"

#include <poll.h>

#include "base/apart.h"
#include "base/hidden.h"
#include "base/log.h"
#include "base/ready.h"
#include "link/identity.h"
#include "link/link.h"
#include "stream/counters.h"
#include "stream/setup.h"

namespace loopfast {

namespace {

constexpr int kSignGiven = 8;  // in SharedHalf::sign, beside what the switches were before
constexpr uint32_t kOftenAtFirst = 64;
constexpr int kMostStrangers = 8;  // turned away in one call

/// What can be told without a sign: the same network namespace, and the uid of the process on the link is
/// that of the other end's socket.
bool same_owner(const Stream& stream, int fd, int link, SocketFacts& facts, Credentials& credentials,
                Reason& reason) {
    const SharedHalf& shared = *stream.shared;
    reason = Reason::kIdentity;
    if (!same_namespace(fd, link)) {
        reason = Reason::kNamespace;
        return false;
    }
    if (!credentials_of(link, credentials) || !look_up_socket(shared.remote, shared.local, facts))
        return false;
    if (!facts.established) {
        reason = Reason::kEnding;
        return false;
    }
    return facts.cookie != 0 && facts.uid == credentials.uid && uid_is_exact(facts.uid) &&
           facts.sign != kNoSign;
}

/// The second look: the same socket as at the first one, with its sign given meanwhile, and the peer that is
/// on the link was there all the time, so that nobody else can have had its name. And it has sent what came
/// here, no less and no more: where addresses are translated, a socket that mirrors ours need not be the one
/// at the other end.
Met has_signed(const Stream& stream, int fd, int link) {
    const SharedHalf& shared = *stream.shared;
    SocketFacts facts{};
    KernelCounts before;
    if (!kernel_counts(fd, before) || !look_up_socket(shared.remote, shared.local, facts) ||
        facts.cookie != stream.peer_cookie)
        return Met::kStranger;
    if (!facts.established)
        return Met::kEnding;
    return is_sign(stream.peer_sign, facts.sign) && !hung_up(link) &&
                   peers_count_agrees(stream, fd, before, facts)
               ? Met::kProven
               : Met::kStranger;
}

/// Something was said, or will never be.
bool readable(int link) { return (ready_now(link, POLLIN) & (POLLIN | POLLHUP | POLLERR)) != 0; }

void met(Stream& stream, const SocketFacts& facts, const Credentials& credentials, Stage stage) {
    stream.peer_cookie = facts.cookie;
    stream.peer_sign = facts.sign;
    stream.peer_pid = credentials.pid;
    stream.stage = stage;
    stream.quiet_calls = 0;
}

/// Connector: takes the connection that comes from the answer's name, and sends all others away.
bool take_answer(Stream& stream) {
    if (apart_is_full()) {
        stream.shared->reason.store(static_cast<uint32_t>(Reason::kLimit), std::memory_order_relaxed);
        return false;
    }
    for (int i = 0; i < kMostStrangers; ++i) {
        const int link = take_offer_connection(stream.offer);
        if (link == -2)  // the reason, should nothing better come
            stream.shared->reason.store(static_cast<uint32_t>(Reason::kLimit), std::memory_order_relaxed);
        if (link < 0)
            return false;
        if (comes_from_answerer(link, tuple_of(stream))) {
            stream.stage = Stage::kMet;
            stream.quiet_calls = 0;
            stream.pending_link.store(link, std::memory_order_relaxed);
            return true;
        }
        LOOPFAST_LOG("slot %u: a stranger on the offer", stream.slot);
        close_link(link, true);
    }
    return false;
}

Met turned_away(Stream& stream, Met how) {
    LOOPFAST_LOG("slot %u: the peer on the link %s", stream.slot,
                 how == Met::kGone     ? "went away"
                 : how == Met::kEnding ? "is about to end the connection"
                                       : "has not proven that it owns the other end");
    end_meeting(stream);
    // One that went away was there, and will hardly be long: looked for as often as at the beginning.
    if (how == Met::kGone) {
        stream.offer_calls = stream.role == Role::kConnector ? 0 : stream.offer_calls.load();
        stream.next_look_in = stream.shared->kernel_in.load(std::memory_order_relaxed);
    }
    return how;
}

/// Receives what the peer has to say next, all of it. @return kProven: it said that
Met hear(Stream& stream, int link, Kind kind, Message& message) {
    int none = -1;
    switch (receive_message(link, kind, message, none)) {
    case Received::kNothing:
        return Met::kNotYet;
    case Received::kGone:
        return turned_away(stream, Met::kGone);
    case Received::kBad:
        return turned_away(stream, Met::kStranger);
    case Received::kMessage:
        break;
    }
    return Met::kProven;
}

Met seen_to_sign(Stream& stream, int fd, int link) {
    const Met how = has_signed(stream, fd, link);
    if (how != Met::kProven)
        return turned_away(stream, how);
    stream.stage = Stage::kProven;
    return Met::kProven;
}

}  // namespace

Tuple tuple_of(const Stream& stream) {
    const SharedHalf& shared = *stream.shared;
    return stream.role == Role::kConnector ? Tuple{shared.local, shared.remote}
                                           : Tuple{shared.remote, shared.local};
}

bool greet(Stream& stream, int fd, int link, Reason& reason) {
    SocketFacts facts{};
    Credentials credentials{};
    if (!same_owner(stream, fd, link, facts, credentials, reason))
        return false;
    reason = Reason::kIdentity;
    if (!send_message(link, message_of(kHello, facts.cookie, cookie_of(fd)), -1))
        return false;
    met(stream, facts, credentials, Stage::kMet);
    return true;
}

Met meet_connector(Stream& stream, int fd) {
    if (stream.stage == Stage::kProven)
        return Met::kProven;
    const int link = stream.pending_link.load(std::memory_order_relaxed);
    if (!readable(link))
        return Met::kNotYet;
    Message message;
    if (const Met heard = hear(stream, link, kSigned, message); heard != Met::kProven)
        return heard;
    if (message.connector_cookie != stream.peer_cookie || message.acceptor_cookie != cookie_of(fd))
        return turned_away(stream, Met::kStranger);
    return seen_to_sign(stream, fd, link);
}

namespace {

/// Connector: the acceptor's hello. Our look comes before our sign, and so before the acceptor's.
Met answer(Stream& stream, int fd, int link) {
    // A relative would hold the socket, and not the offer's name: were this process killed while it signs,
    // the sign could be seen on without the name, and taken back, which looks like one that is given.
    if (!held_by_us_alone(stream))
        return Met::kNotYet;
    Message message;
    if (const Met heard = hear(stream, link, kHello, message); heard != Met::kProven)
        return heard;
    SocketFacts facts{};
    Credentials credentials{};
    Reason reason;
    if (!same_owner(stream, fd, link, facts, credentials, reason))
        return turned_away(stream, reason == Reason::kEnding ? Met::kEnding : Met::kStranger);
    if (message.acceptor_cookie != facts.cookie || message.connector_cookie != cookie_of(fd) ||
        !show_sign(stream, fd) ||
        !send_message(link, message_of(kSigned, message.connector_cookie, facts.cookie), -1))
        return turned_away(stream, Met::kStranger);
    met(stream, facts, credentials, Stage::kSigned);
    return Met::kNotYet;
}

}  // namespace

Met meet_acceptor(Stream& stream, int fd) {
    if (stream.pending_link.load(std::memory_order_relaxed) < 0 && !take_answer(stream))
        return Met::kNotYet;
    if (stream.stage == Stage::kProven)
        return Met::kProven;
    const int link = stream.pending_link.load(std::memory_order_relaxed);
    if (!readable(link))
        return Met::kNotYet;
    if (stream.stage == Stage::kMet)
        return answer(stream, fd, link);
    if (hung_up(link))
        return turned_away(stream, Met::kGone);
    return seen_to_sign(stream, fd, link);
}

bool show_sign(Stream& stream, int fd) {
    const int before = sign_of(fd);
    if (before == kNoSign)
        return false;
    stream.sign_fd = fd;
    stream.sign_cookie = cookie_of(fd);
    // Noted before it is given: should this process be killed in between, a relative takes back what is
    // there.
    stream.shared->sign.store(before | kSignGiven, std::memory_order_relaxed);
    if (give_sign(fd, before))
        return true;
    stream.shared->sign.store(0, std::memory_order_relaxed);
    return false;
}

void hide_sign(Stream& stream) {
    // Exchanged: a close may come on top of a setup, and relatives share it.
    const int sign = stream.shared->sign.exchange(0, std::memory_order_relaxed);
    // The number may mean another socket by now.
    if (sign != 0 && cookie_of(stream.sign_fd) == stream.sign_cookie)
        take_sign_back(stream.sign_fd, sign & kSignMask);
}

void end_meeting(Stream& stream) {
    // In this order: the name that the link or the offer holds is held while the sign can be seen.
    hide_sign(stream);
    stream.stage = Stage::kNobody;
    close_link(stream.pending_link.exchange(-1, std::memory_order_relaxed), true);
}

void forget_link_of_parent(Stream& stream) {
    stream.stage = Stage::kNobody;
    close_hidden(stream.pending_link.exchange(-1, std::memory_order_relaxed));
}

void keep_options_private(Stream& stream) {
    // In the middle of giving it, it is not there yet for others to see, or its giver is this very thread.
    if (stream.shared->sign.load(std::memory_order_relaxed) == 0 || !hold_setup(stream))
        return;
    end_meeting(stream);
    release_setup(stream);
}

bool meeting_due(Stream& stream) {
    const uint32_t calls = ++stream.quiet_calls;
    return calls <= kOftenAtFirst || calls % kOftenAtFirst == 0;
}

}  // namespace loopfast
