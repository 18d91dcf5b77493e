// TCP_USER_TIMEOUT: the kernel ends a connection whose peer lets its window be closed for so long while there
// is something to send. A ring that stays full for so long is left, whoever reads there: what is sent from
// then on finds room in the kernel or does not, and there the option does what it does.
//
// Who finds no room on a stream that has the option says so (stream.h, found_no_room); the steward looks at
// these streams every now and then. So such a connection may last up to twice as long as over the kernel
// alone.
#pragma once

namespace loopfast {

struct Stream;

/// Says how the streams' room is minded. Called once, at load. `mind` wakes the steward, if there is one.
void connect_impatience(bool (*mind)());
/// The steward's round. @return whether there are streams to be looked at again.
bool leave_full_rings();
/// Nobody looks any more: whoever finds no room from now on says so anew.
void forget_full_rings();

}  // namespace loopfast
