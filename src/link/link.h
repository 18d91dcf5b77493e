// The link: an AF_UNIX stream connection between the two ends of one fused connection. It carries a hello
// from the acceptor, the connector's answer, and the acceptor's proposal with the segment's descriptor; then
// bells both ways.
//
// Nothing here ever blocks: every socket is non-blocking by flag of each call, and a peer can neither
// change that nor make us wait for a half-sent message.
#pragma once

#include <cstdint>

#include "link/address.h"
#include "segment/layout.h"

namespace loopfast {

/// One message of the handshake; each goes out in one piece.
struct Message {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;              ///< enum Kind
    uint64_t connector_cookie;  ///< of the connector's TCP socket
    uint64_t acceptor_cookie;   ///< of the acceptor's TCP socket
    uint32_t segment_version;
    uint32_t unused;
};
enum Kind : uint32_t {
    kHello = 1,  ///< acceptor: I have looked at your socket, and wait for its sign
    kSigned,     ///< connector: I have looked at yours, and given my sign
    kProposal    ///< acceptor: yours is proven, here is mine, and the segment
};
constexpr uint64_t kMessageMagic = 0x7266657231706f6c;

/// Who looks at a pair of sockets from one of their ends says the same of both as the other end.
inline Message message_of(Kind kind, uint64_t connector_cookie, uint64_t acceptor_cookie) {
    return {kMessageMagic, kLinkVersion, kind, connector_cookie, acceptor_cookie, kSegmentVersion, 0};
}

/// The bytes that follow. What they say is never looked at: they wake, and nothing more.
enum class Note : unsigned char {
    kBell = 'b'  ///< look at the segment
};

/// Whether there is room for one more offer, or for one more link of an acceptor, and for what the offers
/// that stand will need: many that begin at once would otherwise take all, and none would be finished.
/// kLater: when some of these are done.
enum class Room { kYes, kLater, kNone };
Room room_for_offer();
Room room_for_link();

/// Listens on the offer's name. @return a hidden descriptor, or -1: no descriptor left, or somebody holds
/// the name already; -2: the process may not.
int make_offer(const Tuple& tuple);

/// Takes one connection to an offer. @return a hidden descriptor, or -1 when nobody is there; -2: there is
/// no room for one.
int take_offer_connection(int listener);

enum class Found { kYes, kNobody, kTaken, kNoRoom, kForbidden };
/// Takes the answer's name and connects to the offer of `tuple`, if there is one; `link` is a hidden
/// descriptor then. kTaken: somebody holds the answer's name already.
Found find_offer(const Tuple& tuple, int& link);

/// Closes an offer, and turns away all who came and were not let in.
void close_offer(int listener);

/// Closes a link. What its other end has queued on it may take long to let go of (base/apart.h): then that is
/// done elsewhere. `last_word`: nobody else holds it, and nothing more is to come.
void close_link(int link, bool last_word);

/// Before the kernel closes a link itself, in an exec: a peer that has queued what takes long to let go of,
/// as none does that keeps to the protocol, is gone from it then, with what he queued.
void unburden_link(int link);

/// Whether the socket at the other end of `link` is the one that holds the answer's name of `tuple`.
bool comes_from_answerer(int link, const Tuple& tuple);

/// `descriptor` is -1 for the messages without one.
bool send_message(int link, const Message& message, int descriptor);

enum class Received { kNothing, kMessage, kGone, kBad };
/// Receives a message of this kind, and the descriptor of a proposal (close-on-exec, to be closed by the
/// caller). kGone: the peer hung up without a word. Anything else that is not a whole and well-formed message
/// is kBad, and leaves no descriptor behind. Descriptors where none belong stay on the link unseen.
Received receive_message(int link, Kind kind, Message& message, int& descriptor);

enum class Sent { kYes, kFull, kNobody };
/// Sends one note. A full queue swallows it; that cannot happen to a peer that drains as it must, see
/// wait/sleeper.cpp. kNobody: the other end is closed, or this one.
Sent send_note(int link, Note note);

/// Reads away all notes but the last, so that the queue cannot fill. The last one stays because epoll asks
/// the socket again before it reports an edge: a link that was emptied by one waiter would silence another
/// that was woken by the same note. One drainer at a time.
void drain_notes(int link);

/// True when every holder of the other end is gone.
bool hung_up(int link);

}  // namespace loopfast
