// See replacement.h.
#include "posix/replacement.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "base/hidden.h"
#include "base/log.h"
#include "link/link.h"
#include "posix/posix.h"
#include "wait/blocking.h"
#include "wait/poll_set.h"

namespace loopfast {

namespace {

struct SocketPair {
    int given = -1;  ///< to the program
    int kept = -1;
};

/// A TCP connection of this process with itself, over 127.0.0.1.
bool connect_to_ourselves(SocketPair& pair) {
    const int listener = sys::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair.given = sys::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = __builtin_bswap32(INADDR_LOOPBACK);
    sockaddr_in own{};
    socklen_t size = sizeof address;
    socklen_t own_size = sizeof own;
    bool good = listener >= 0 && pair.given >= 0 && sys::bind(listener, &address, sizeof address) == 0 &&
                sys::listen(listener, 8) == 0 && sys::getsockname(listener, &address, &size) == 0 &&
                sys::connect(pair.given, &address, size) == 0 &&
                sys::getsockname(pair.given, &own, &own_size) == 0;
    // A stranger may have connected before us: only our own connection is taken.
    for (int round = 0; good && round < 64; ++round) {
        sockaddr_in from{};
        socklen_t from_size = sizeof from;
        const int taken = sys::accept4(listener, &from, &from_size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (taken < 0)
            break;
        if (from.sin_port == own.sin_port && from.sin_addr.s_addr == own.sin_addr.s_addr) {
            pair.kept = taken;
            break;
        }
        sys::close(taken);
    }
    if (listener >= 0)
        sys::close(listener);
    if (pair.kept >= 0)
        return true;
    if (pair.given >= 0)
        sys::close(pair.given);
    return false;
}

/// One way of carrying: what was received from one side and not yet sent to the other.
struct Way {
    unsigned char bytes[16384];
    size_t begin = 0;
    size_t end = 0;
    bool ended = false;  ///< nothing more will come, and the other side was told

    bool empty() const { return begin == end; }
};

ssize_t receive_now(int fd, void* bytes, size_t size) {
    if (Stream* const stream = fused_stream_of(find_stream(fd))) {
        const iovec part{bytes, size};
        Buffers to(&part, 1);
        return receive(*stream, fd, &to, size, MSG_DONTWAIT);
    }
    return sys::recv(fd, bytes, size, MSG_DONTWAIT);
}

ssize_t send_now(int fd, const void* bytes, size_t size) {
    if (Stream* const stream = fused_stream_of(find_stream(fd))) {
        const iovec part{const_cast<void*>(bytes), size};
        return send(*stream, fd, Buffers(&part, 1), size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return sys::send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void end_output(int fd) {
    Stream* const stream = find_stream(fd);
    const int how = stream != nullptr ? before_shutdown(*stream, fd, SHUT_WR) : SHUT_WR;
    if (how == SHUT_WR)
        sys::shutdown(fd, SHUT_WR);
    if (stream != nullptr)
        after_shutdown(*stream, SHUT_WR);
}

enum class Carried { kSoFar, kSourceBroke, kTargetBroke };

/// Moves what can be moved now.
Carried carry(int from, int to, Way& way) {
    for (int round = 0; round < 64; ++round) {
        if (way.empty() && !way.ended) {
            const ssize_t got = receive_now(from, way.bytes, sizeof way.bytes);
            if (got == -EAGAIN || got == -EINTR)
                return Carried::kSoFar;
            if (got < 0)
                return Carried::kSourceBroke;
            way.begin = 0;
            way.end = static_cast<size_t>(got);
            if (got == 0) {
                way.ended = true;
                end_output(to);
            }
        }
        if (way.empty())
            return Carried::kSoFar;
        const ssize_t sent = send_now(to, way.bytes + way.begin, way.end - way.begin);
        if (sent == -EAGAIN || sent == -EINTR)
            return Carried::kSoFar;
        if (sent < 0)
            return Carried::kTargetBroke;
        way.begin += static_cast<size_t>(sent);
    }
    return Carried::kSoFar;
}

/// The peer takes nothing any more: what the program goes on sending is dropped, so that it need not wait.
void drop_what_comes(int kept, Way& outward) {
    outward.begin = outward.end = 0;
    for (;;) {
        const ssize_t got = receive_now(kept, outward.bytes, sizeof outward.bytes);
        if (got == 0)
            outward.ended = true;
        if (got <= 0)
            return;
    }
}

/// Until the program's side has all that was sent to it. A socket that is closed with something unread in it
/// resets its connection, and with that forgets what it has yet to send.
void await_delivery(int kept, Way& outward) {
    int waiting = 0;
    for (int64_t pause = 100'000; sys::ioctl(kept, SIOCOUTQ, &waiting) == 0 && waiting != 0 &&
                                  (sys::ready_now(kept, 0) & (POLLERR | POLLHUP)) == 0;
         pause = pause < 50'000'000 ? pause * 2 : pause) {
        drop_what_comes(kept, outward);
        sys::sleep_ns(pause);
    }
}

void wait_for_either(int connection, int kept, const Way& inward, const Way& outward) {
    const auto events = [](const Way& in, const Way& out) {
        return static_cast<short>((in.empty() && !in.ended ? POLLIN : 0) | (out.empty() ? 0 : POLLOUT));
    };
    pollfd fds[2] = {{connection, events(inward, outward), 0}, {kept, events(outward, inward), 0}};
    // A side that is waited for in neither way would report its hang-up for ever.
    for (pollfd& entry : fds)
        if (entry.events == 0)
            entry.fd = -1;
    if (poll_needs_us(fds, 2))
        poll_streams(fds, 2, kForever, nullptr);
    else
        sys::ppoll(fds, 2, nullptr, nullptr);
}

/// The carrying process. It lives until both directions have ended.
[[noreturn]] void carry_on(int connection, int kept) {
    // Nothing of the program's is kept open but the connection itself; what we hide we need.
    for (int fd = 0; fd < 65536; ++fd) {
        if (fd == connection || fd == kept || is_hidden(fd))
            continue;
        const int hidden = next_hidden(fd);
        const int next = hidden < 0 ? 65536 : hidden;
        int end = next;
        if (connection > fd && connection < end)
            end = connection;
        if (kept > fd && kept < end)
            end = kept;
        sys::call(SYS_close_range, fd, end - 1, 0);
        fd = end - 1;
    }
    static Way inward;
    static Way outward;
    bool refused =
        false;  // by a peer that has gone: what it sent before it went is the program's all the same
    while (!(inward.ended && (refused || outward.ended))) {
        const Carried in = carry(connection, kept, inward);
        if (in == Carried::kTargetBroke)
            break;
        if (in == Carried::kSourceBroke) {
            await_delivery(kept, outward);
            const linger reset{1, 0};
            sys::setsockopt(kept, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            break;
        }
        if (refused) {
            drop_what_comes(kept, outward);
        } else {
            const Carried out = carry(kept, connection, outward);
            if (out == Carried::kSourceBroke)
                break;
            refused = out == Carried::kTargetBroke;
            if (refused)
                continue;
        }
        if (!(inward.ended && (refused || outward.ended)))
            wait_for_either(connection, kept, inward, outward);
    }
    if (refused)
        await_delivery(kept, outward);
    sys::call(SYS_exit_group, 0);
    __builtin_unreachable();
}

/// Forks twice, so that the carrier is nobody's child: the program must not be told of its end.
bool start_carrier(int connection, int kept) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    const pid_t middle = fork();
    if (middle == 0) {
        const pid_t carrier = fork();
        if (carrier == 0)
            carry_on(connection, kept);
        sys::call(SYS_exit_group, carrier > 0 ? 0 : 1);
    }
    int status = 1;
    if (middle > 0)
        while (sys::call(SYS_wait4, middle, sys::word(&status), 0, 0) == -EINTR) {
        }
    // The middle one's SIGCHLD is taken with it, unless one of the program's own is waiting as well.
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return middle > 0 && status == 0;
}

/// Whether nobody is there any more for what we would send. One that ended only its own half waits for an
/// answer.
bool ended_both_ways(Stream& stream, int fd) {
    const int ready = sys::ready_now(fd, POLLRDHUP);
    if (ready < 0 || (ready & (POLLRDHUP | POLLHUP | POLLERR)) == 0)
        return false;
    if ((ready & (POLLHUP | POLLERR)) != 0)
        return true;
    const int link = stream.link.load(std::memory_order_relaxed);
    return stream.their_words().closing.load(std::memory_order_relaxed).equals(kClosingBoth) ||
           ((link < 0 || hung_up(link)) && !said_that_it_left(stream));
}

/// Unread bytes of a connection that has ended, where the kernel's buffers take all of them.
bool pour_over(Stream& stream, int fd, int kept) {
    int in_kernel = 0;
    if (!ended_both_ways(stream, fd) || sys::ioctl(fd, FIONREAD, &in_kernel) < 0 || in_kernel != 0)
        return false;
    // The other one's window takes it at once, so that no reset can come in between.
    static constexpr uint64_t kSurelyFits = 32 * 1024;
    if (stream.reader().available() > kSurelyFits)
        return false;
    unsigned char bytes[4096];
    for (ssize_t got; (got = receive_now(fd, bytes, sizeof bytes)) > 0;)
        if (sys::send(kept, bytes, static_cast<size_t>(got), MSG_DONTWAIT | MSG_NOSIGNAL) != got)
            return false;  // cannot be: less than any buffer holds
    sys::shutdown(kept, SHUT_WR);
    return true;
}

/// The program may know of the unread bytes already, and ask without waiting: so the carrier gets a moment.
void await_carried(int given, uint64_t unread) {
    const uint64_t enough = unread < sizeof Way::bytes ? unread : sizeof Way::bytes;
    int there = 0;
    for (int round = 0; round < 100; ++round) {
        if (sys::ioctl(given, FIONREAD, &there) < 0 || static_cast<uint64_t>(there) >= enough)
            return;
        sys::sleep_ns(200'000);
    }
}

void put_in_place(int given, Stream& stream, int named) {
    const TableEntry entry = find(named);
    const bool nonblocking = stream.shared->nonblocking.load(std::memory_order_relaxed) != 0;
    sys::fcntl(given, F_SETFL, O_RDWR | (nonblocking ? O_NONBLOCK : 0));
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd)) {
        if (find(fd).packed() != entry.packed())
            continue;
        const int flags = sys::fcntl(fd, F_GETFD);
        if (flags < 0)
            continue;
        const TableEntry old = before_close(fd);
        sys::call(SYS_dup3, given, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
        after_close(fd, old);
    }
}

}  // namespace

bool replace_descriptor(Stream& stream, int fd) {
    SocketPair pair;
    if (!connect_to_ourselves(pair))
        return false;
    const uint64_t unread = bytes_waiting(stream, fd);
    const bool good = pour_over(stream, fd, pair.kept) || start_carrier(fd, pair.kept);
    if (good) {
        await_carried(pair.given, unread);
        put_in_place(pair.given, stream, fd);
    }
    LOOPFAST_LOG("slot %u: a fresh socket %s in place of descriptor %d", stream.slot,
                 good ? "is" : "cannot be", fd);
    sys::close(pair.given);
    sys::close(pair.kept);
    return good;
}

}  // namespace loopfast
