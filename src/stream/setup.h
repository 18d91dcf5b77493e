// Scopes for those who change a stream's state: one at a time, and with nobody inside the kernel.
#pragma once

#include "stream/stream.h"

namespace loopfast {

/// One thread at a time per stream, whatever its process; who comes second simply leaves (a later call
/// looks again), so nothing waits here. No signal handler runs in the thread that is inside: it would find a
/// connection that is half handed over, could only wait for the thread it interrupted, and might jump away.
class SetupScope {
public:
    SetupScope(Stream& stream, int fd);
    ~SetupScope();
    bool entered() const { return entered_; }

private:
    Stream& stream_;
    bool entered_;
    uint64_t signals_ = 0;  ///< blocked before
};

/// The same from outside, for the length of a fork: waits until it is ours. @return false if it did not
/// become ours, since this thread is in a setup itself.
bool hold_setup(Stream& stream);
void release_setup(Stream& stream);

/// No relative holds the stream's socket. When one does, that is the reason why it stays where it is.
bool held_by_us_alone(Stream& stream);

/// Nobody is inside a kernel receive or wait on the stream, no relative holds it, and its interest entries
/// are in our hands. While it lasts the state is kPending and every other call waits for the outcome; it
/// ends with the state that was there before unless settle() was called after a new one was stored.
class Exclusive {
public:
    Exclusive(Stream& stream, int fd, State before);
    ~Exclusive();
    bool granted() const { return granted_; }
    void settle() { settled_ = true; }

private:
    Stream& stream_;
    State before_;
    bool granted_;
    bool settled_ = false;
};

}  // namespace loopfast
