// See replacement.h.
#include "posix/replacement.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <new>

#include "base/hidden.h"
#include "base/log.h"
#include "base/ready.h"
#include "link/link.h"
#include "posix/carrier.h"
#include "posix/posix.h"
#include "wait/epoll_set.h"

namespace loopfast {

namespace {

struct SocketPair {
    int given = -1;  ///< to the program
    int kept = -1;
};

/// A TCP connection of this process with itself, over 127.0.0.1.
bool connect_to_ourselves(SocketPair& pair) {
    const RoomForOurs room;  // a program that is out of descriptors passes some on all the more
    const int listener = sys::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair.given = sys::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = __builtin_bswap32(INADDR_LOOPBACK);
    sockaddr_in own{};
    socklen_t size = sizeof address;
    socklen_t own_size = sizeof own;
    const bool good =
        listener >= 0 && pair.given >= 0 && sys::bind(listener, &address, sizeof address) == 0 &&
        sys::listen(listener, 8) == 0 && sys::getsockname(listener, &address, &size) == 0 &&
        sys::connect(pair.given, &address, size) == 0 && sys::getsockname(pair.given, &own, &own_size) == 0;
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
    pair.given = -1;
    return false;
}

/// Bytes depend on it. What may be in the way for a moment: want of memory or ports, and, as on a loaded
/// machine even a connect to ourselves waits, an interruption.
bool insist_on_connecting(SocketPair& pair) {
    constexpr int kAttempts = 50;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        if (connect_to_ourselves(pair))
            return true;
        sys::sleep_ns(attempt < kAttempts / 2 ? 100'000 : 5'000'000);
    }
    return false;
}

/// What the program set on the old socket and will count on: above all how long its calls wait.
void copy_options(int from, int to) {
    struct Option {
        int level;
        int name;
    };
    constexpr Option kOptions[] = {
        {SOL_SOCKET, SO_RCVTIMEO},    {SOL_SOCKET, SO_SNDTIMEO},  {SOL_SOCKET, SO_RCVLOWAT},
        {SOL_SOCKET, SO_LINGER},      {SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_OOBINLINE},
        {IPPROTO_TCP, TCP_NODELAY},   {IPPROTO_TCP, TCP_CORK},    {IPPROTO_TCP, TCP_KEEPIDLE},
        {IPPROTO_TCP, TCP_KEEPINTVL}, {IPPROTO_TCP, TCP_KEEPCNT}, {IPPROTO_TCP, TCP_USER_TIMEOUT}};
    for (const Option& option : kOptions) {
        unsigned char value[16];  // the largest is a timeval
        socklen_t size = sizeof value;
        if (sys::insisting([&] { return sys::getsockopt(from, option.level, option.name, value, &size); }) ==
            0)
            sys::insisting([&] { return sys::setsockopt(to, option.level, option.name, value, size); });
    }
    const int status = sys::fcntl(from, F_GETFL);
    if (status >= 0)
        sys::fcntl(to, F_SETFL, status);
}

/// Whether nobody is there any more for what we would send. One that ended only its own half waits for an
/// answer.
bool ended_both_ways(Stream& stream, int fd) {
    const int ready = ready_now(fd, POLLRDHUP);
    if (ready < 0 || (ready & (POLLRDHUP | POLLHUP | POLLERR)) == 0)
        return false;
    if ((ready & (POLLHUP | POLLERR)) != 0)
        return true;
    // One that left the ring is there still, whatever became of the process that did so.
    const int link = stream.link.load(std::memory_order_relaxed);
    return !said_that_it_left(stream) &&
           (stream.their_words().closing.load(std::memory_order_relaxed).equals(kClosingBoth) || link < 0 ||
            hung_up(link));
}

/// The old connection was reset, and so is the new one, behind the bytes.
void reset_behind_the_bytes(int kept) {
    int waiting = 0;
    for (int round = 0; round < 100 && sys::ioctl(kept, SIOCOUTQ, &waiting) == 0 && waiting != 0; ++round)
        sys::sleep_ns(100'000);
    const linger reset{1, 0};
    if (waiting == 0)
        sys::insisting([&] { return sys::setsockopt(kept, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); });
}

/// Unread bytes of a connection that has ended, where the kernel's buffers take all of them. What was taken
/// and did not fit is in `rest`.
bool pour_over(Stream& stream, int fd, int kept, Way& rest) {
    int in_kernel = 0;
    if (!ended_both_ways(stream, fd) || sys::ioctl(fd, FIONREAD, &in_kernel) < 0 || in_kernel != 0)
        return false;
    // The other one's window takes it at once, so that no reset can come in between.
    static constexpr uint64_t kSurelyFits = 32 * 1024;
    if (stream.reader().available() > kSurelyFits)
        return false;
    for (;;) {
        const ssize_t got = receive_now(fd, rest.bytes, sizeof rest.bytes);
        if (got == -EAGAIN || got == -EINTR)
            return false;
        if (got < 0)
            reset_behind_the_bytes(kept);
        if (got <= 0)
            break;
        rest.begin = 0;
        rest.end = static_cast<size_t>(got);
        const ssize_t sent = sys::send(kept, rest.bytes, rest.end, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0)
            rest.begin = static_cast<size_t>(sent);
        if (!rest.empty())
            return false;
    }
    sys::shutdown(kept, SHUT_WR);
    return true;
}

/// The program may know of the unread bytes already, and ask without waiting: so the carrier gets a moment,
/// and as long as it has brought none a longer one, since it may have to wait for a processor.
void await_carried(int given, uint64_t unread) {
    constexpr uint64_t kAPart = 16384;
    const uint64_t enough = unread < kAPart ? unread : kAPart;
    constexpr int kMostWithoutAny = 5000;
    constexpr int kMostWithoutMore = 100;
    int before = 0;
    for (int without = 0; without < (before == 0 ? kMostWithoutAny : kMostWithoutMore); ++without) {
        int there = 0;
        if (sys::ioctl(given, FIONREAD, &there) < 0 || static_cast<uint64_t>(there) >= enough ||
            (ready_now(given, POLLRDHUP) & (POLLRDHUP | POLLERR | POLLHUP)) != 0)
            return;
        if (there > before)
            without = 0;
        before = there;
        sys::sleep_ns(200'000);
    }
}

void put_in_place(int given, int named) {
    const TableEntry entry = find(named);
    for (int fd = next_entry(-1); fd >= 0; fd = next_entry(fd)) {
        if (find(fd).packed() != entry.packed())
            continue;
        const int flags = sys::fcntl(fd, F_GETFD);
        if (flags < 0)
            continue;
        const KeptInterest interest(fd);
        const TableEntry old = before_close(fd);
        // EBUSY: another thread is being given this number.
        for (long result = -EBUSY; result == -EBUSY || result == -EINTR;)
            result = sys::call(SYS_dup3, given, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
        after_close(fd, old);
        interest.put_back();
    }
}

/// No handler runs meanwhile: it would find the connection in two halves, and take bytes out of the one.
class NoSignals {
public:
    NoSignals() {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before_);
    }
    ~NoSignals() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
    NoSignals(const NoSignals&) = delete;
    NoSignals& operator=(const NoSignals&) = delete;

private:
    sigset_t before_;
};

}  // namespace

bool replace_descriptor(Stream& stream, int fd) {
    const NoSignals quiet;
    SocketPair pair;
    if (!insist_on_connecting(pair)) {
        LOOPFAST_LOG("slot %u: no fresh socket can be had", stream.slot);
        return false;
    }
    copy_options(fd, pair.given);
    const uint64_t unread = bytes_waiting(stream, fd);
    // Not on the stack, which may be a signal handler's.
    void* const memory =
        sys::mmap(nullptr, sizeof(Ways), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool good = false;
    if (!sys::mmap_failed(memory)) {
        Ways& ways = *new (memory) Ways();
        good = pour_over(stream, fd, pair.kept, ways.inward) || start_carrier(fd, pair.kept, ways);
        sys::munmap(memory, sizeof(Ways));
    }
    if (good) {
        await_carried(pair.given, unread);
        put_in_place(pair.given, fd);
    }
    LOOPFAST_LOG("slot %u: a fresh socket %s in place of descriptor %d", stream.slot,
                 good ? "is" : "cannot be", fd);
    sys::close(pair.given);
    sys::close(pair.kept);
    return good;
}

}  // namespace loopfast
