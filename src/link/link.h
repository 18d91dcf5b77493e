// The link: an AF_UNIX stream connection between the two ends of one fused connection. It carries one
// proposal with the segment's descriptor from the acceptor, then bells and single-byte notes both ways.
//
// Nothing here ever blocks: every socket is non-blocking by flag of each call, and a peer can neither
// change that nor make us wait for a half-sent message.
#pragma once

#include <cstdint>

#include "link/address.h"

namespace loopfast {

/// What the acceptor sends, in one piece, together with the segment's descriptor.
struct Proposal {
    uint64_t magic;
    uint32_t version;
    uint32_t size;
    uint64_t connector_cookie;  ///< of the connector's TCP socket, as sock_diag shows it to the acceptor
    uint64_t acceptor_cookie;   ///< of the acceptor's own TCP socket
};
constexpr uint64_t kProposalMagic = 0x7266657231706f6c;
constexpr uint32_t kProposalVersion = 1;

/// The bytes that follow. What they say is never looked at: they wake, and nothing more.
enum class Note : unsigned char {
    kBell = 'b'  ///< look at the segment
};

/// Listens on the offer's name. @return a hidden descriptor, or -1: no descriptor left, or somebody holds
/// the name already.
int make_offer(const Tuple& tuple);

/// Takes one connection to an offer. @return a hidden descriptor, or -1 when nobody is there.
int take_offer_connection(int listener);

/// Connects to the offer of `tuple`, if there is one. @return a hidden descriptor, or -1.
int find_offer(const Tuple& tuple);

bool send_proposal(int link, const Proposal& proposal, int segment_fd);

enum class Received { kNothing, kProposal, kGone, kBad };
/// Receives a proposal and its descriptor (close-on-exec, to be closed by the caller). kGone: the peer hung
/// up without a word. Anything else that is not a whole and well-formed proposal is kBad, and leaves no
/// descriptor behind.
Received receive_proposal(int link, Proposal& proposal, int& segment_fd);

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
