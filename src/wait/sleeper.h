// One thread waits for one stream. It sleeps in an epoll set of its own in which the link and the kernel
// socket are registered edge-triggered, once for all waits of this thread on this stream: cheaper than poll
// plus a read, and nothing is drained.
#pragma once

#include <signal.h>

#include "base/handlers.h"
#include "stream/stream.h"

namespace loopfast {

enum class Want { kReceive, kSend };
/// kInterrupted: a handler ran that ends a call. kRestarted: one ran after which a call goes on, unless it
/// has a timeout.
enum class WaitResult { kReady, kTimeout, kInterrupted, kRestarted };

/// Waits until the stream may have what is wanted, until `deadline`, or for a handler that returns after
/// `handlers` was made, when the call began or was begun anew. kReady is a reason to try again, no promise.
/// The caller holds the stream (see caller.h). `more_than`: with kReceive, wait for more bytes than these (0
/// normally).
WaitResult wait_for(Stream& stream, int fd, Want want, int64_t deadline, const HandlersSince& handlers,
                    uint64_t more_than = 0);

/// Whether a wait for this would end now.
bool is_ready(Stream& stream, int fd, Want want, uint64_t more_than);

/// What an event on a link or a kernel socket means for its stream, wherever the event was found.
void link_event(Stream& stream, uint32_t events);
inline void kernel_event(Stream& stream) { forget_kernel_readiness(stream); }

/// Arms a word of `stream` for a sleep that its link will end. All arming goes through here: at most one bell
/// comes for each time we arm, so counting these tells when the link has to be drained before its queue is
/// full (some 270 notes) and the peer's bells are lost.
void arm(Stream& stream, Untrusted<uint64_t>& word, uint64_t token);

/// The calling thread's own epoll set, with the stream's link and kernel socket in it, edge-triggered; -1
/// when there is no descriptor for it. For waits on several streams at once.
int watch_in_thread(Stream& stream, int fd);
/// Takes what events the thread's set has, without waiting.
void take_thread_events();

/// Before a sleep on a stream that had relatives: one of them may have been killed after it moved a cursor
/// and before it looked whether the peer sleeps. Rings what is armed, in its place.
void heal(Stream& stream);

/// Before a sleep: tell a producer whose backlog we have drained that its pages can go.
void offer_pages_back(Stream& stream);

/// epoll_pwait2 with nanoseconds where the kernel has it, unless a handler has run; a cancellation point like
/// the call it serves. @return events, or -errno.
int sleep_in_epoll(int set, epoll_event* events, int capacity, int64_t left, const sigset_t* mask,
                   const HandlersSince& handlers);

/// The child of a fork makes its own.
void forget_thread_waiter();

}  // namespace loopfast
