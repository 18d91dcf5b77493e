// Closing what a stranger may have had his hands on.
//
// Any process may queue descriptors on a socket that it can connect to, and who closes that socket, or throws
// the message away, lets go of them in its own time. The last one to let go of a descriptor waits for what
// its end takes: for a TCP socket with SO_LINGER until its bytes are acknowledged, which may be never; for a
// file of a user's file system until that user's server answers; for gigabytes of memory until they are
// freed. So a program's call must not do it. Threads do that are made for it and end with it, and the waits
// end with them where there can be an heir (base/heir.h).
#pragma once

namespace loopfast {

/// Closes a descriptor, hidden or not, in a thread of its own; here only where there can be none.
void close_apart(int fd);

/// So many closes do not come to an end that no more strangers should be let in.
bool apart_is_full();

/// For who is about to execute a program, which closes what is left in the table and waits for it, or must
/// not find a thread of ours: all is out of the table when this returns, or will not be soon.
void finish_apart();

/// There have been threads, of which some may still be there: the last thing that one can say of itself it
/// says before it is gone, and the kernel counts it until then.
bool apart_has_been_at_work();

void apart_after_fork_in_child();

}  // namespace loopfast
