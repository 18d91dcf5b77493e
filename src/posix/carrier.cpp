// See carrier.h. What each side may do to the other is what the kernel would have done in between: an end is
// an end, a reset is a reset, and what was sent before either of them arrives first.
#include "posix/carrier.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/ready.h"
#include "posix/orphan.h"
#include "posix/posix.h"
#include "wait/blocking.h"
#include "wait/poll_set.h"
#include "wait/steward.h"

namespace loopfast {

ssize_t receive_now(int fd, void* bytes, size_t size) {
    if (Stream* const stream = fused_stream_of(find_stream(fd))) {
        const iovec part{bytes, size};
        Buffers to(&part, 1);
        return receive(*stream, fd, &to, size, MSG_DONTWAIT);
    }
    return sys::recv(fd, bytes, size, MSG_DONTWAIT);
}

namespace {

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

/// By whom a direction was ended before its end came.
enum class Broken { kNo, kBySource, kByTarget };

/// Moves what can be moved now. `end_is_reset`: the source's end is none that the target may take for one.
Broken carry(int from, int to, Way& way, bool end_is_reset) {
    for (int round = 0; round < 64; ++round) {
        if (way.empty() && !way.ended) {
            const ssize_t got = receive_now(from, way.bytes, sizeof way.bytes);
            if (got == -EAGAIN || got == -EINTR)
                return Broken::kNo;
            if (got < 0 || (got == 0 && end_is_reset))
                return Broken::kBySource;
            way.begin = 0;
            way.end = static_cast<size_t>(got);
            if (got == 0) {
                way.ended = true;
                end_output(to);
            }
        }
        if (way.empty())
            return Broken::kNo;
        const ssize_t sent = send_now(to, way.bytes + way.begin, way.end - way.begin);
        if (sent == -EAGAIN || sent == -EINTR || sent == -ENOMEM || sent == -ENOBUFS)
            return Broken::kNo;
        if (sent < 0)
            return Broken::kByTarget;
        way.begin += static_cast<size_t>(sent);
    }
    return Broken::kNo;
}

/// The other side takes nothing any more: what still comes for it is dropped, so that its sender need not
/// wait.
void drop_what_comes(int from, Way& way) {
    way.begin = way.end = 0;
    while (!way.ended) {
        const ssize_t got = receive_now(from, way.bytes, sizeof way.bytes);
        if (got == -EAGAIN || got == -EINTR)
            return;
        way.ended = got <= 0;
    }
}

/// Until the other side of `socket` has all that was sent to it, while what it sends is dropped. A socket
/// that is reset, or closed with something unread in it, forgets what it has yet to send.
void await_delivery(int socket, Way& from_there) {
    int waiting = 0;
    for (int64_t pause = 100'000; sys::ioctl(socket, SIOCOUTQ, &waiting) == 0 && waiting != 0 &&
                                  (ready_now(socket, 0) & (POLLERR | POLLHUP)) == 0;
         pause = pause < 50'000'000 ? pause * 2 : pause) {
        drop_what_comes(socket, from_there);
        sys::sleep_ns(pause);
    }
}

/// Its end will be a reset.
void reset_at_close(int socket) {
    const linger reset{1, 0};
    sys::insisting([&] { return sys::setsockopt(socket, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); });
}

void wait_for_either(int connection, int kept, short of_connection, short of_kept) {
    pollfd fds[2] = {{connection, of_connection, 0}, {kept, of_kept, 0}};
    // A side that is waited for in neither way would report its hang-up for ever.
    for (pollfd& entry : fds)
        if (entry.events == 0)
            entry.fd = -1;
    if (poll_needs_us(fds, 2))
        poll_streams(fds, 2, kForever, nullptr);
    else
        sys::ppoll(fds, 2, nullptr, nullptr);
}

/// Both directions, until each has ended or cannot go on.
class Carriage {
public:
    Carriage(int connection, int kept, Ways& ways)
        : connection_(connection), kept_(kept), inward_(ways.inward), outward_(ways.outward) {}

    void run() {
        for (;;) {
            step(connection_, kept_, inward_, in_, false);
            // A program that reads no more, and then has nothing more to say, has closed with bytes unread.
            step(kept_, connection_, outward_, out_, in_ == Broken::kByTarget);
            if (over())
                break;
            wait_for_either(connection_, kept_, events(inward_, outward_), events(outward_, inward_));
        }
        // What was sent before an end or a reset that came from one side is delivered to the other one first.
        if (in_ == Broken::kBySource || out_ == Broken::kByTarget)
            await_delivery(kept_, outward_);
        if (in_ == Broken::kBySource)
            reset_at_close(kept_);
        finish_stewardship(kForever);  // what the peer left in the ring is on its way back
        if (out_ == Broken::kBySource || in_ == Broken::kByTarget) {
            finish_way_out();
            await_delivery(connection_, inward_);
            reset_at_close(connection_);
        }
        close_descriptor(connection_);
        finish_stewardship(kForever);
    }

private:
    /// A reset ends both ways at once. Of who takes nothing more only what he sent is waited for.
    bool over() const {
        if (in_ == Broken::kBySource || out_ == Broken::kBySource)
            return true;
        return (inward_.ended || in_ == Broken::kByTarget) && (outward_.ended || out_ == Broken::kByTarget);
    }

    static void step(int from, int to, Way& way, Broken& broken, bool end_is_reset) {
        if (broken == Broken::kNo)
            broken = carry(from, to, way, end_is_reset);
        if (broken == Broken::kByTarget)
            drop_what_comes(from, way);
    }

    /// What a side is waited for: `in` is what comes from it, `out` what goes to it.
    static short events(const Way& in, const Way& out) {
        return static_cast<short>((in.empty() && !in.ended ? POLLIN : 0) | (out.empty() ? 0 : POLLOUT));
    }

    void finish_way_out() const {
        Stream* const stream = find_stream(connection_);
        while (stream != nullptr && !finish_output(*stream, connection_))
            sys::sleep_ns(1'000'000);
    }

    int connection_;
    int kept_;
    Way& inward_;
    Way& outward_;
    Broken in_ = Broken::kNo;
    Broken out_ = Broken::kNo;
};

struct Carrying {
    int connection;
    int kept;
    Ways& ways;
};

}  // namespace

bool start_carrier(int connection, int kept, Ways& ways) {
    Carrying carrying{connection, kept, ways};
    // The process in between lets go of all else, so that nothing is left of that when we go on.
    return start_orphan(
        fork,
        [](void* argument) {
            const Carrying& wanted = *static_cast<const Carrying*>(argument);
            let_go_of_the_rest(
                [](int fd, void* that) { return fd == static_cast<Carrying*>(that)->connection; }, argument,
                wanted.connection, wanted.kept);
        },
        [](void* argument) {
            const Carrying& wanted = *static_cast<const Carrying*>(argument);
            Carriage(wanted.connection, wanted.kept, wanted.ways).run();
        },
        &carrying);
}

}  // namespace loopfast
