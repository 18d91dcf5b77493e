// The meeting of the two ends on a link, up to the point where each has proven to the other that it owns the
// other end of this very connection (link/possession.h has the idea):
//
//     acceptor                                    connector
//     takes its name, connects, looks (1)
//     hello                              ->       whose name is it? looks (1), gives its sign
//                                        <-       signed
//     looks (2): the sign is there
//     gives its sign, proposal           ->       looks (2): the sign is there; confirms
//     takes its sign back                         takes its sign back
//
// Each step is taken at a call that the program makes anyway, and none waits: a peer that is silent leaves
// the connection where it is. All functions here are called inside a SetupScope.
#pragma once

#include "stream/stream.h"

namespace loopfast {

Tuple tuple_of(const Stream& stream);

/// Acceptor, with a fresh link to somebody's offer: looks for the first time, and says hello.
bool greet(Stream& stream, int fd, int link, Reason& reason);

enum class Met {
    kNotYet,
    kProven,
    kGone,
    kEnding,  ///< the connection is being shut down, which is no time to move it
    kStranger
};
/// Acceptor: has the connector given its sign?
Met meet_connector(Stream& stream, int fd);
/// Connector: one step further with whoever is on the link. kGone, kEnding and kStranger: that link is
/// closed, and the offer stands. kProven: a proposal can be read.
Met meet_acceptor(Stream& stream, int fd);

bool show_sign(Stream& stream, int fd);
/// Also outside a SetupScope, where the stream is about to end.
void hide_sign(Stream& stream);
/// Hides the sign and closes the link of an unfinished meeting, in this order.
void end_meeting(Stream& stream);

/// Whether it is time to look at a silent link: at each call first, at every 64th later.
bool meeting_due(Stream& stream);

}  // namespace loopfast
