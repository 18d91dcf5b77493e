// The steward: one thread per process that sees to what may not wait for the program's next call.
//
// A peer may leave the ring (it executes another program, passes its descriptor on, is told to) while bytes
// of ours that it has not read lie there. Only we can send them again, over the kernel lane, and a program
// that computes for a minute makes no call in that time. So there is a thread, from the first fused
// connection of a process on, that sleeps in an epoll set on the links' hang-ups. Of a fused connection it
// wakes for nothing else: not for a bell, not for time. models/leave.pml has it as a third actor.
//
// And a connection is to be fused at once, whatever the program does meanwhile: writes a mebibyte, waits for
// an answer, computes. So from the first offer, or the first one found, the steward also watches offers and
// pending links, and takes the steps of the setup (stream.h: carry_on) as soon as they are due. He is one
// more thread that does what every call of the program does, inside the same scopes, and none of his steps
// waits.
//
// What it must not disturb: it blocks all signals; a fork's child starts its own when it needs one; calls
// that the kernel refuses to a process with several threads (unshare, setns) stop it first; and it does not
// keep a process alive whose main thread ended by pthread_exit (posix/threads.cpp).
#pragma once

namespace loopfast {

/// Connects the layers below with this one. Called once, at load.
void connect_steward();

/// What the steward is called by, for sets in which others wait for such a call: -1 while there is no
/// steward. It is never read, so register it edge-triggered.
int steward_call();

/// Ends the thread and waits for that; it starts again at the next need. For calls that want one thread.
void stop_steward();
/// The same, and never again.
void retire_steward();

/// At the end of the process: a moment for bytes that are on their way back to the kernel lane.
void finish_stewardship();

}  // namespace loopfast
