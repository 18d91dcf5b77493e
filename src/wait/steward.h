// The steward: one thread per process that sees to what may not wait for the program's next call.
//
// A peer may leave the ring (it executes another program, passes its descriptor on, is told to) while bytes
// of ours that it has not read lie there. Only we can send them again, over the kernel lane, and a program
// that computes for a minute makes no call in that time. So there is a thread, from the first fused
// connection of a process on, that sleeps in an epoll set on the links' hang-ups. It wakes for nothing else:
// not for a bell, and for time only while bytes are held back or a ring is full for too long (impatience.h).
// models/leave.pml has it as a third actor.
//
// What it must not disturb: it blocks all signals; a fork's child starts its own when it needs one; calls
// that the kernel refuses to a process with several threads (unshare, setns) stop it first; and it does not
// keep a process alive whose main thread ended by pthread_exit (posix/threads.cpp).
#pragma once

#include <cstdint>

namespace loopfast {

/// Connects the layers below with this one. Called once, at load.
void connect_steward();

/// Ends the thread and waits for that; it starts again at the next need. For calls that want one thread.
/// @return whether there was one: the kernel may count it for a moment longer
bool stop_steward();
/// The same, and never again.
void retire_steward();

/// At the end of the process: time for bytes that are on their way back to the kernel lane. @return whether
/// all of them got there.
bool finish_stewardship(int64_t patience);

/// A process forked while this is on inherits what is on its way, and has to see to it itself.
void bequeath_errands(bool on);
/// One round of that. @return whether nothing is left.
bool run_errands();

}  // namespace loopfast
