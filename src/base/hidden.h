// Descriptors of our own, out of the program's way: close-on-exec, above every number that the program
// could be given under the limit it started with, and immune to "close everything" loops.
//
// The kernel gives no number above the soft limit, but leaves those alone that are there. So the limit is
// raised for the moment in which a descriptor is hidden, and no longer: a program that is given a number
// beyond its own limit may not be prepared for it (FD_SET writes out of bounds). Only the hard limit stays
// raised, where it had to be; getrlimit() goes on showing the one that the program knows (posix/limits.cpp).
#pragma once

#include <sys/resource.h>

#include <atomic>

namespace loopfast {

/// Moves `fd` to a hidden number and closes `fd`. @return the new number, or -1 (then `fd` is closed too):
/// no room for one more, and the connection simply stays on the slow path.
int hide(int fd);

/// A hidden duplicate, or -1. Made in one step: threads that the program does not know of must not take a
/// number for a moment that its next call is to have, or that it closes and uses while they still mean it.
int hide_copy(int fd);

/// Closes a hidden descriptor.
void close_hidden(int fd);

/// About how many more can be hidden; fewer where the program itself has taken such numbers.
int hidden_room();

/// While it lives the kernel gives numbers beyond the program's limit, for what may not fail because the
/// program has used up its own.
class RoomForOurs {
public:
    RoomForOurs();
    ~RoomForOurs();
    RoomForOurs(const RoomForOurs&) = delete;
    RoomForOurs& operator=(const RoomForOurs&) = delete;
};

namespace hidden_detail {
inline std::atomic<bool> any{false};  // false until something is hidden
bool look(int fd);
}  // namespace hidden_detail

/// True when `fd` is one of ours, that the program must not touch. One load in a process that hides nothing.
inline bool is_hidden(int fd) {
    // Relaxed, like the bits: who asks about a hidden number was told of it in another, ordered way.
    return hidden_detail::any.load(std::memory_order_relaxed) && hidden_detail::look(fd);
}

/// The lowest hidden number in use at or above `from`, or -1.
int next_hidden(int from);

/// The limits the program believes in. Each returns false when the kernel's are the truth (nothing was
/// raised); otherwise fills or replaces what the program sees.
bool visible_limit(rlimit& limit);
/// The program sets its own limit: keep ours above it. @return 0 or -errno.
int set_visible_limit(const rlimit& limit);
/// The program, which has opted in, is about to set this limit. Where that would take away the numbers above
/// the soft limit for good, the hard limit stays where it is from here on, and visible_limit() says yes.
void keep_room_above(const rlimit& limit);
/// The program has changed a limit that is its own to change (visible_limit said no): numbers that it no
/// longer allows cannot be had any more.
void limit_changed();

/// Before exec: the new image inherits the limit the program believes in. After a failed exec: ours again.
void lower_limit_for_exec();
void raise_limit_after_exec();

/// In the child of a fork: who was in the middle of hiding a descriptor is a thread of the parent.
void hidden_after_fork_in_child();

}  // namespace loopfast
