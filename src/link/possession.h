// The sign: how the owner of a TCP socket shows that it is the owner.
//
// Every process of a network namespace can look at a TCP socket through sock_diag, but only who holds its
// descriptor can change it. So the owner gives a sign by turning over three switches that have no meaning for
// a connected TCP socket: whether multicast is looped back, from which groups it is taken, and how ICMP
// errors of datagrams are reported. No byte of the connection, no packet and no call of the program depends
// on them. Three, and none that programs use with TCP, so that nothing a program does can pass for the sign.
//
// What a sign says follows from when it may be given:
//
//   - a connector gives it only while it holds the offer's name, to a link whose other end has the answer's
//   name;
//   - an acceptor gives it only while it holds the answer's name, which it takes before it looks for an
//   offer.
//
// A name is held by one socket at a time. So whoever sees its peer's socket change while it is on the link
// knows that the peer is at the other end of this very link, and nobody in between: somebody who relays would
// have to hold a name that the true owner holds. That is certain, not likely: no secret and no luck is in it.
// models/possession.pml checks it; docs/security.md has the argument.
#pragma once

namespace loopfast {

constexpr int kNoSign = -1;
constexpr int kSignLoop = 1;    ///< IP_MULTICAST_LOOP
constexpr int kSignAll = 2;     ///< IP_MULTICAST_ALL
constexpr int kSignErrors = 4;  ///< IP_RECVERR_RFC4884
constexpr int kSignMask = kSignLoop | kSignAll | kSignErrors;

/// The switches of a socket of ours. @return them, or kNoSign.
int sign_of(int fd);
/// Turns all of them over from what they are, `before`. @return false when the kernel would not; nothing is
/// changed then.
bool give_sign(int fd, int before);
/// Puts back what was there before, but for what somebody else has changed meanwhile.
void take_sign_back(int fd, int before);
/// Whether `now` is the sign of a socket that stood at `before`.
inline bool is_sign(int before, int now) {
    return before != kNoSign && now != kNoSign && (before ^ now) == kSignMask;
}
/// Whether this option is one of the switches.
bool belongs_to_sign(int level, int name);

}  // namespace loopfast
