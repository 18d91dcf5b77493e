// A blocking call on a stream, from the moment it has to wait. While one is under way, a close of the
// descriptor by another thread does not end the connection, as in the kernel, where the call holds the open
// file: a hidden duplicate takes the descriptor's place until the last call is over.
//
// A call of the very thread that closes lies underneath a handler. In the kernel the signal has ended it, and
// let go of the file, before the handler began: it keeps nothing, and says afterwards what one that begins
// anew would.
//
// Calls do not always return: a signal handler may jump away from one, a thread may be cancelled in it. So
// each thread keeps a list of its own; what lies there from frames that are gone is ended in their place.
#pragma once

#include "stream/stream.h"

namespace loopfast {

/// The descriptor by which the connection under such a call can be reached now; `fd` is the one that the call
/// came with.
inline int reached_by(const Stream& stream, int fd) {
    // Acquire pairs with the release in keep() in table.cpp: the duplicate is there.
    const int kept = stream.kept.load(std::memory_order_acquire);
    return kept >= 0 ? kept : fd;
}

class Caller {
public:
    enum Of { kOneStep, kSeveralSteps };
    /// Of several steps each goes by the descriptor: for them it is kept also from a handler's close.
    Caller(Stream& stream, int fd, Of steps = kOneStep);
    ~Caller();
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

    /// False when the stream was closed before this call could hold it.
    bool alive() const { return alive_; }
    int fd() const { return reached_by(stream_, fd_); }
    /// True when a handler on top of this call has closed the descriptor, and nothing keeps it.
    bool gone() const;

private:
    friend class Reach;
    Stream& stream_;
    int fd_;
    bool listed_;  ///< a thread's list is only so long; one more is only watched for
    bool alive_;
};

/// An attempt of a call that has waited, which may receive or send by the number: while it exists, a close of
/// that number by another thread waits, so that nothing else has it meanwhile.
class Reach {
public:
    explicit Reach(const Caller& call);
    ~Reach();
    Reach(const Reach&) = delete;
    Reach& operator=(const Reach&) = delete;

    int fd() const { return fd_; }

private:
    const Caller& call_;
    int fd_;
};
/// Whether this thread is in one, below a handler.
bool reaches(const Stream& stream);
/// This thread, in a handler, closes a descriptor of the stream: its calls on the stream below the handler
/// hear of that, and keep nothing. @return how many there are.
int overtake_calls(const Stream& stream);

/// The same for waits that have no Caller: `frame` is an object in the waiting function's frame. @return
/// false when no more calls can be listed.
bool begin_call(Stream& stream, const void* frame);
void end_call(Stream& stream, const void* frame);

/// Ends those calls of this thread whose frames are gone, as far as an object in a frame that is there tells:
/// where it lies, and below it.
void end_jumped_calls(const void* here);
/// The thread is about to jump to a frame that begins at `target`; 0 where that is not known.
void end_calls_below(uintptr_t target);
/// The thread is ending: all of them.
void end_calls_of_thread();
/// In the child of a fork, which has this thread's calls only (a handler may fork on top of one).
void count_calls_again();

}  // namespace loopfast
