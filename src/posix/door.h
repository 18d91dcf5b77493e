// What libloopfast has for the Winsock door beside libc's names: a look at a stream that costs a few loads,
// the attempt to send or receive without libc's manners (cancellation, errno), and an epoll wait for a door
// that looks by itself. Not for programs: they may change with every version.
//
// A set is waited on like this: look at all streams with something to do; if none is ready,
// loopfast_door_spin(); if that found nothing, loopfast_door_wait(). A set whose streams are always found
// ready is given a loopfast_door_glance() every 50 us, and a loopfast_door_wait() without a timeout now and
// then, as streams that the caller does not look at are reported by these only.
#pragma once

#include <cstddef>
#include <cstdint>

struct epoll_event;

extern "C" {

/// Which of `wanted`, POLLIN and POLLOUT, the fused connection behind `fd` is ready for. @return the bits, or
/// -1: it is not fused, or something else is going on with it that only a call, or the wait, will tell.
int loopfast_door_look(int fd, int wanted);

/// recv and send with MSG_DONTWAIT and MSG_NOSIGNAL, for a connection on the ring: bytes, or -errno. LONG_MIN
/// where it is not on the ring: recv or send is the right call.
long loopfast_door_receive(int fd, void* bytes, size_t size);
long loopfast_door_send(int fd, const void* bytes, size_t size);

/// Spins, if that pays, until `look` says yes or the timeout in nanoseconds (INT64_MAX: none) is over.
/// @return whether it did.
bool loopfast_door_spin(int set, int64_t timeout, bool (*look)(void* context), void* context);

/// As epoll_wait, with a timeout in nanoseconds, without spinning. @return events or -errno.
int loopfast_door_wait(int set, epoll_event* events, int capacity, int64_t timeout);

/// What links, kernel sockets and ordinary descriptors have to tell, without waiting.
int loopfast_door_glance(int set, epoll_event* events, int capacity);
}
