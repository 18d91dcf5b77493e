// See counters.h.
#include "stream/counters.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cstddef>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SOL_TCP
#define SOL_TCP 6
#endif
#ifndef TCP_INQ
#define TCP_INQ 36
#endif

namespace loopfast {

namespace {

/// The kernel's part of the limit when a program leaves the buffers alone.
constexpr uint64_t kDefaultPart = kDefaultCapacity / 2;

bool tcp_info_of(int fd, tcp_info& info) {
    socklen_t size = sizeof info;
    return sys::getsockopt(fd, SOL_TCP, TCP_INFO, &info, &size) == 0 &&
           size >= offsetof(tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received;
}

int option_of(int fd, int level, int name, int unknown = 0) {
    int value = 0;
    socklen_t size = sizeof value;
    return sys::getsockopt(fd, level, name, &value, &size) == 0 ? value : unknown;
}

void set_option(int fd, int level, int name, int value) {
    sys::setsockopt(fd, level, name, &value, sizeof value);
}

int64_t timeout_of(int fd, int name) {
    timeval value{};
    socklen_t size = sizeof value;
    if (sys::getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 || (value.tv_sec == 0 && value.tv_usec == 0))
        return kForever;
    return value.tv_sec * 1'000'000'000LL + value.tv_usec * 1000LL;
}

}  // namespace

bool sent_count_agrees(const Stream& stream, int fd) {
    int unsent = 0;
    sys::ioctl(fd, SIOCOUTQNSD, &unsent);
    if (unsent > 0) {
        const int no_delay = option_of(fd, SOL_TCP, TCP_NODELAY);
        set_option(fd, SOL_TCP, TCP_NODELAY, 1);  // this alone sends what waits
        if (no_delay == 0)
            set_option(fd, SOL_TCP, TCP_NODELAY, 0);
        if (option_of(fd, SOL_TCP, TCP_CORK) != 0) {
            set_option(fd, SOL_TCP, TCP_CORK, 0);
            set_option(fd, SOL_TCP, TCP_CORK, 1);
        }
    }
    // Acknowledgements may arrive between two questions; the third time they hardly will.
    for (int attempt = 0; attempt < 3; ++attempt) {
        tcp_info before;
        tcp_info after;
        int queued = 0;
        if (!tcp_info_of(fd, before) || sys::ioctl(fd, SIOCOUTQ, &queued) < 0 || !tcp_info_of(fd, after))
            return false;
        if (before.tcpi_bytes_acked != after.tcpi_bytes_acked)
            continue;
        // The connector's SYN counts as one acknowledged byte, the acceptor's does not.
        const uint64_t syn = stream.role == Role::kConnector ? 1 : 0;
        return before.tcpi_bytes_acked - syn + static_cast<uint64_t>(queued) ==
               stream.shared->kernel_out.load(std::memory_order_relaxed);
    }
    return false;
}

bool received_count_agrees(const Stream& stream, int fd) {
    for (int attempt = 0; attempt < 3; ++attempt) {
        tcp_info before;
        tcp_info after;
        int waiting = 0;
        if (!tcp_info_of(fd, before) || sys::ioctl(fd, FIONREAD, &waiting) < 0 || !tcp_info_of(fd, after))
            return false;
        if (before.tcpi_bytes_received != after.tcpi_bytes_received)
            continue;
        return before.tcpi_bytes_received - static_cast<uint64_t>(waiting) ==
               stream.shared->kernel_in.load(std::memory_order_relaxed);
    }
    return false;
}

uint64_t received_by_kernel(int fd) {
    tcp_info info;
    return tcp_info_of(fd, info) ? info.tcpi_bytes_received : 0;
}

bool received_at_least(int fd, uint64_t count) {
    tcp_info info;
    int waiting = 0;
    return tcp_info_of(fd, info) && info.tcpi_bytes_received >= count &&
           sys::ioctl(fd, FIONREAD, &waiting) == 0 && waiting == 0;
}

bool needs_kernel(int fd) {
    char protocol[16] = {};
    socklen_t size = sizeof protocol;
    const bool upper_protocol =
        sys::getsockopt(fd, SOL_TCP, TCP_ULP, protocol, &size) == 0 && size > 0 && protocol[0] != 0;
    const int status = sys::fcntl(fd, F_GETFL);
    return upper_protocol || (status >= 0 && (status & O_ASYNC) != 0) ||
           option_of(fd, SOL_SOCKET, SO_ZEROCOPY) != 0 || option_of(fd, SOL_SOCKET, SO_OOBINLINE) != 0 ||
           option_of(fd, SOL_SOCKET, SO_PEEK_OFF, -1) >= 0 || option_of(fd, SOL_TCP, TCP_INQ) != 0 ||
           option_of(fd, SOL_SOCKET, SO_TIMESTAMP) != 0 || option_of(fd, SOL_SOCKET, SO_TIMESTAMPNS) != 0 ||
           option_of(fd, SOL_SOCKET, SO_TIMESTAMPING) != 0;
}

void read_options(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    shared.receive_timeout.store(timeout_of(fd, SO_RCVTIMEO), std::memory_order_relaxed);
    shared.send_timeout.store(timeout_of(fd, SO_SNDTIMEO), std::memory_order_relaxed);
    shared.low_water.store(static_cast<uint32_t>(option_of(fd, SOL_SOCKET, SO_RCVLOWAT)),
                           std::memory_order_relaxed);
    const int status = sys::fcntl(fd, F_GETFL);
    shared.nonblocking.store(status >= 0 && (status & O_NONBLOCK) != 0, std::memory_order_relaxed);
    // Sizes that were set before the socket was known here; since Linux 5.14 the kernel tells.
    constexpr int kSendLocked = 1;
    constexpr int kReceiveLocked = 2;
    const int locked = option_of(fd, SOL_SOCKET, SO_BUF_LOCK);
    const auto size_of = [&](bool set, int name) {
        const int size = set ? option_of(fd, SOL_SOCKET, name) : 0;
        return size > 0 ? static_cast<uint64_t>(size) : kDefaultPart;
    };
    if (shared.send_size.load(std::memory_order_relaxed) == 0)
        shared.send_size.store(size_of((locked & kSendLocked) != 0, SO_SNDBUF), std::memory_order_relaxed);
    if (shared.receive_size.load(std::memory_order_relaxed) == 0)
        shared.receive_size.store(size_of((locked & kReceiveLocked) != 0, SO_RCVBUF),
                                  std::memory_order_relaxed);
}

}  // namespace loopfast
