// The engine: one thread for the case that something is pending and no thread of the program waits for it,
// say because the program polls OVERLAPPED::Internal, or computes between two calls of a completion-port
// loop.
//
// It is started when that first happens. A reactor that nobody has driven for a tick it adopts: it sleeps in
// poll() on the adopted sets, without a timeout. A reactor that is driven now and then, as a busy server's
// is, it only looks at, every tick. When all are driven or nothing is pending, it sleeps until told. So a
// busy server pays a hundred short wake-ups a second and no system call of its own, an idle one nothing.
//
// The same tick sees to ports whose concurrency value keeps packets from waiting threads: if a thread that
// the value counts as running is in fact asleep (in a call that is not ours), another is let in.
#pragma once

namespace loopfast::winsock {

class Reactor;

void engine_knows(Reactor* reactor);
void engine_forgets(Reactor* reactor);
/// Something is pending where nobody drives, or a port holds packets back.
void engine_wanted();
/// A thread has taken the role of a reactor that the engine had adopted.
void engine_lets_go(Reactor& reactor);

}  // namespace loopfast::winsock
