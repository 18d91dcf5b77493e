// The POSIX front door: libc's names, defined again. Rules for the code in this folder:
//
//   1. Each wrapper does the same things in the same order: find the entry; if there is none, call the real
//      function and nothing else; if there is one, call the layer below, translate its -errno.
//   2. Nothing here knows a lane, a ring or a link.
//   3. errno is changed only where the function fails.
//   4. No allocation, no lock held over a call into libc, nothing that a signal handler could not do.
//   5. A call made before our constructor works: real:: resolves itself, and the table is empty then.
#pragma once

#include <errno.h>

#include "base/real.h"
#include "stream/stream.h"
#include "table/table.h"

#define LOOPFAST_PUBLIC extern "C" __attribute__((visibility("default")))

namespace loopfast {

/// The way a function of libc reports: -1 and errno, or the value.
template <typename Result> Result returned(long result) {
    if (result < 0) [[unlikely]] {
        errno = static_cast<int>(-result);
        return static_cast<Result>(-1);
    }
    return static_cast<Result>(result);
}

/// A call on a stream was interrupted, and in its place the kernel would now make a new one of the same
/// number, which is another file's by now or nobody's. See wait/blocking.h.
inline bool has_to_begin_anew(long result) { return result < 0 && errno == ERESTART; }

/// A stream with bytes to move in user space, or nullptr: then the kernel's call is right.
inline Stream* fused_stream_of(Stream* stream) {
    return stream != nullptr && stream->fused() ? stream : nullptr;
}

/// A descriptor that socket() or accept() just returned is looked at: does its process opt in?
void socket_made(int fd, int family, int type, int protocol);
void accepted(int listener, int fd, int family);
/// After connect() succeeded or is under way.
void connecting(int fd, const sockaddr* address, socklen_t size);
/// After a send with MSG_FASTOPEN, which connects as well; `sent` is what it returned. Leaves errno as it is.
void begun_by_sending(Stream& stream, int fd, ssize_t sent);

/// The descriptor goes where the library does not follow (another program, another process, stdio): from here
/// on its bytes take the kernel lane, those that lie unread in the ring included.
void part_with(Stream& stream, int fd, Reason reason);
/// For what only the kernel's socket can do: the stream goes back to it. Where the peer has ended and left
/// unread bytes that nobody can send again, it stays: what is left to the connection the ring can do as well.
void leave_ring(Stream& stream, int fd);
/// The same as part_with() for every descriptor that an executed program would inherit.
void part_with_inherited();

/// Directions that are about to end without a close, by exec or by the end of the process: what a peer that
/// left the ring did not take goes into the kernel first, if need be after this process has ended. `counted`:
/// it still counts among those that hold the connections.
void finish_outputs(bool (*ends)(const Stream& stream), bool counted);

/// Takes the last part of closing any descriptor: the real close between the two halves of ours.
int close_descriptor(int fd);

/// Signals: installed at the first fused connection, see fault.cpp.
void install_fault_handlers();
/// In the child of a fork: another thread of the parent may have been in there.
void fault_handlers_forked();
/// All that a child has to do, however it was forked.
void forked_in_child();

/// The main thread is about to end in a way that libc does not see. If the process ends with it, then not
/// before a thread of ours is gone and what peers left is on its way.
void end_main_thread();

/// Makes a call that returns twice, as fork does where nobody calls its handlers.
template <typename Call> auto like_fork(Call call) {
    before_fork();
    const auto result = call();
    const int error = errno;
    if (result == 0)
        forked_in_child();
    else
        after_fork_in_parent();
    errno = error;
    return result;
}

/// Whether what a program passed by pointer can be read: the kernel says EFAULT where we would crash.
bool readable(const void* memory, size_t size);
/// Writes to a program's memory where the kernel would. @return 0, or -EFAULT.
template <typename Value> long put(Value* to, const Value& value) {
    const iovec part{to, sizeof value};
    return Buffers(&part, 1).copy_out(&value, sizeof value) ? 0 : -EFAULT;
}

}  // namespace loopfast
