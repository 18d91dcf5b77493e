// The attacker: owns the other end of the victim's connection, speaks the link's protocol by itself and can
// stop keeping to it at any step. It uses the library's description of names and layouts, none of its code
// for links, rings or streams.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "link/address.h"
#include "link/link.h"
#include "segment/segment.h"
#include "victim_process.h"

namespace loopfast::hostile {

/// A memfd as one would send it; each field can be wrong.
struct Forged {
    uint64_t size;
    int seals;
    SegmentHeader header;

    Forged();
    int make() const;
};

int plain_listen(uint16_t& port);
/// Sends any bytes with any descriptors. @return whether the whole went out.
bool send_raw(int link, const void* bytes, size_t size, const std::vector<int>& descriptors);
/// `named`: from the name that an acceptor's link must have.
int connect_link(const Tuple& tuple, bool named = true);
int listen_link(const Tuple& tuple);

/// One connection with the victim, from the other side.
class Attack {
public:
    enum Side { kVictimConnects, kVictimAccepts };

    /// Connects in plain TCP. With kVictimAccepts `before_connect` runs when the tuple is known and the
    /// victim has not accepted yet: the moment to take the offer's name.
    Attack(Victim& victim, Side side, const std::function<void(Attack&)>& before_connect = nullptr);
    ~Attack();
    Attack(const Attack&) = delete;
    Attack& operator=(const Attack&) = delete;

    /// The message that a good peer would send now.
    Message good_message(Kind kind) const;
    /// Says hello, and waits until the victim has given its sign. @return whether it did.
    bool greet();
    /// Gives our sign.
    void sign();
    /// All of the handshake before the proposal.
    bool shake_hands() { return greet() && (sign(), true); }
    /// All steps as they should be. @return whether the victim's sends go to the ring afterwards.
    bool fuse();
    /// Takes the victim's hello off the offer. @return whether there was one.
    bool take_hello();
    /// Shakes hands and takes the proposal of the victim that accepts. @return the segment's descriptor.
    int take_proposal();
    bool map(int descriptor);
    void hang_up();
    /// Says that our direction goes on in the ring.
    void publish_cut();

    /// Direction of our bytes, and of the victim's.
    Direction& ours() { return segment.segment->direction[side == kVictimConnects ? 1 : 0]; }
    Direction& theirs() { return segment.segment->direction[side == kVictimConnects ? 0 : 1]; }
    unsigned char* our_data() { return segment.data(side == kVictimConnects ? 1 : 0); }
    SideWords& our_side() { return segment.segment->side[side == kVictimConnects ? 1 : 0]; }
    /// Puts bytes into the ring (first window only) and rings.
    void write_ring(const std::string& bytes);
    void bell();

    /// Both directions over TCP alone, some rounds: what the victim must be able to do whenever it was not
    /// fused. Fails the test where it cannot, or not promptly.
    bool converse(int rounds = 12);

    Victim& victim;
    Side side;
    Tuple tuple;
    int tcp = -1;
    int link = -1;
    int offer = -1;
    int memory = -1;
    MappedSegment segment;
    uint64_t sent_in_tcp = 0;
};

/// Closes the victim's end and looks whether all that the attack cost it has been given back.
class NothingLeaks {
public:
    explicit NothingLeaks(Victim& victim);
    /// `slack`: descriptors that are made once and kept (a thread's epoll set).
    void check(int slack = 0);

private:
    Victim& victim_;
    long descriptors_;
};

}  // namespace loopfast::hostile
