// Descriptors that go where the library does not follow: to a program that is executed, to another process,
// into libc's stdio. What the stream cannot do alone when it leaves the ring is done here.
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/ready.h"
#include "policy/policy.h"
#include "posix/orphan.h"
#include "posix/posix.h"
#include "posix/replacement.h"
#include "wait/steward.h"

namespace loopfast {

namespace {

/// How long a part of a few megabytes may take to go into the kernel's buffers while somebody reads them.
constexpr int kRounds = 20;

}  // namespace

namespace {

/// What lay unread in the ring comes back over the kernel lane as soon as the peer's steward has seen to it.
/// The program may know of the bytes already, and asks without waiting: so give it a moment, as long as they
/// come. A peer that is stopped, or a buffer that is full, ends that.
void await_return(int fd, uint64_t unread) {
    constexpr int kRoundsWithoutAny = 250;
    constexpr int kMostRounds = 2500;
    int before = 0;
    int without = 0;
    for (int round = 0; round < kMostRounds && without < kRoundsWithoutAny; ++round) {
        int waiting = 0;
        if (sys::ioctl(fd, FIONREAD, &waiting) < 0 || static_cast<uint64_t>(waiting) >= unread ||
            (ready_now(fd, POLLRDHUP) & (POLLRDHUP | POLLERR | POLLHUP)) != 0)
            return;
        without = waiting > before ? 0 : without + 1;
        before = waiting;
        sys::sleep_ns(200'000);
    }
}

}  // namespace

namespace {

/// The child of a vfork cannot note in its parent's table that it has put another socket in place of the
/// stream's already, before the descriptor that it duplicates once more.
bool was_replaced(const Stream& stream, int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    return in_borrowed_memory() && stream.cookie != 0 &&
           sys::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 && cookie != stream.cookie;
}

/// What its sender can give to the kernel at once, and so will not take along if it is killed. The buffers of
/// both ends are alike unless a program chose others, and then less is in flight.
uint64_t surely_taken(int fd) {
    int send_buffer = 0;
    socklen_t size = sizeof send_buffer;
    sys::getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, &size);
    return static_cast<uint64_t>(send_buffer);
}

void part(Stream& stream, int fd, Reason reason, bool wanted) {
    if (was_replaced(stream, fd))
        return;
    const int error = errno;
    const uint64_t unread = stream.fused() ? bytes_waiting(stream, fd) : 0;
    const Unread whose = wanted && unread > surely_taken(fd) ? Unread::kKept : Unread::kWaitedFor;
    for (int round = 0;; ++round) {
        if (leave(stream, fd, reason, whose)) {
            if (unread != 0)
                await_return(fd, unread);
            break;
        }
        // Bytes lie in the ring that nobody can send again, or the kernel's buffers are full.
        if (round == kRounds || stream.in_in_ring()) {
            if (!wanted || !replace_descriptor(stream, fd))
                LOOPFAST_LOG("slot %u: bytes in the ring stay behind", stream.slot);
            break;
        }
        sys::sleep_ns(1'000'000);
    }
    errno = error;
}

}  // namespace

void part_with(Stream& stream, int fd, Reason reason) { part(stream, fd, reason, true); }

void leave_ring(Stream& stream, int fd) {
    const int error = errno;
    const uint64_t unread = stream.fused() ? bytes_waiting(stream, fd) : 0;
    // Nothing is gained on a connection that is over.
    for (int round = 0; round < kRounds && (ready_now(fd, 0) & (POLLERR | POLLHUP)) == 0; ++round) {
        if (leave(stream, fd, Reason::kOption, Unread::kWaitedFor)) {
            if (unread != 0)
                await_return(fd, unread);
            break;
        }
        if ((ready_now(fd, POLLRDHUP) & POLLRDHUP) != 0)
            break;
        sys::sleep_ns(1'000'000);  // until the kernel's buffers take what comes before
    }
    errno = error;
}

void part_with_inherited() {
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd)) {
        Stream* const stream = find_stream(fd);
        if (stream == nullptr)
            continue;
        const int flags = sys::fcntl(fd, F_GETFD);
        if (flags < 0 || (flags & FD_CLOEXEC) != 0)
            continue;
        // Bytes that only the ring has are the relatives' to read where there are any, and a program that is
        // executed looks for a connection at the standard descriptors.
        part(*stream, fd, Reason::kOption, fd <= STDERR_FILENO || count_holders(*stream->shared) == 1);
    }
}

namespace {

bool outputs_are_finished(bool (*ends)(const Stream& stream), int others) {
    bool all = true;
    for_each_stream([&](Stream& stream) {
        Hold hold(descriptor_lock(stream.slot));
        const int fd = stream.descriptor.load(std::memory_order_relaxed);
        if (fd >= 0 && stream.segment && ends(stream) && count_holders(*stream.shared) <= others)
            all = finish_output(stream, fd) && all;
    });
    return all;
}

/// This process ends, and the kernel has no room yet for what its peers left in the ring. In its place goes
/// on one that holds nothing else.
void finish_elsewhere() {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    bequeath_errands(true);
    const bool good = start_orphan(
        bare_fork,
        [](void*) {
            let_go_of_the_rest(
                [](int fd, void*) {
                    Stream* const stream = find_stream(fd);
                    return stream != nullptr && stream->segment && said_that_it_left(*stream) &&
                           stream->out_in_ring() && has_unsent(*stream);
                },
                nullptr);
        },
        [](void*) {
            for (;;) {
                const bool errands = run_errands();
                const bool outputs = outputs_are_finished([](const Stream&) { return true; }, INT_MAX);
                if (errands && outputs)
                    return;
                sys::sleep_ns(2'000'000);
            }
        },
        nullptr);
    bequeath_errands(false);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    LOOPFAST_LOG("what peers left in the ring %s", good ? "goes on by itself" : "stays behind");
}

}  // namespace

void finish_outputs(bool (*ends)(const Stream& stream), bool counted) {
    // Whose own filter forbids calls has left the ring, and has no steward.
    if (!had_streams() || setups_forbidden() || in_borrowed_memory())
        return;
    constexpr int64_t kMoment = 200'000'000;
    const int others = counted ? 1 : 0;
    const int64_t deadline = deadline_after(kMoment);
    while (!outputs_are_finished(ends, others) || !finish_stewardship(0)) {
        if (time_left(deadline) == 0) {
            finish_elsewhere();
            return;
        }
        sys::sleep_ns(1'000'000);
    }
}

}  // namespace loopfast
