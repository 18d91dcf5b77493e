// See counters.h.
#include "stream/counters.h"

#include <errno.h>
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

/// An option that this kernel may not have. @return false when it has it and does not tell.
bool option_of(int fd, int level, int name, int& value) {
    socklen_t size = sizeof value;
    const int unknown = value;
    const int result = sys::getsockopt(fd, level, name, &value, &size);
    if (result != 0)
        value = unknown;
    return result == 0 || result == -ENOPROTOOPT || result == -EOPNOTSUPP || result == -EINVAL;
}

/// It is not set, for certain.
bool is_off(int fd, int level, int name, int off = 0) {
    int value = off;
    return option_of(fd, level, name, value) && value == off;
}

void set_option(int fd, int level, int name, int value) {
    sys::insisting([&] { return sys::setsockopt(fd, level, name, &value, sizeof value); });
}

bool timeout_of(int fd, int name, int64_t& timeout) {
    timeval value{};
    socklen_t size = sizeof value;
    if (sys::getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0)
        return false;
    timeout = value.tv_sec == 0 && value.tv_usec == 0
                  ? kForever
                  : value.tv_sec * 1'000'000'000LL + value.tv_usec * 1000LL;
    return true;
}

}  // namespace

bool sent_count_agrees(const Stream& stream, int fd) {
    int unsent = 0;
    sys::ioctl(fd, SIOCOUTQNSD, &unsent);
    if (unsent > 0) {
        int no_delay = 0;
        int cork = 0;
        if (!option_of(fd, SOL_TCP, TCP_NODELAY, no_delay) || !option_of(fd, SOL_TCP, TCP_CORK, cork))
            return false;
        set_option(fd, SOL_TCP, TCP_NODELAY, 1);  // this alone sends what waits
        if (no_delay == 0)
            set_option(fd, SOL_TCP, TCP_NODELAY, 0);
        if (cork != 0) {
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

bool kernel_counts(int fd, KernelCounts& counts) {
    tcp_info info;
    if (!tcp_info_of(fd, info))
        return false;
    counts = {info.tcpi_bytes_acked, info.tcpi_bytes_received};
    return true;
}

bool peers_count_agrees(const Stream& stream, int fd, const KernelCounts& before, const SocketFacts& peer) {
    // In this order, so that whatever is on its way meanwhile is counted on the side where it does no harm.
    int queued = 0;
    KernelCounts after;
    if (!peer.counted || sys::ioctl(fd, SIOCOUTQ, &queued) < 0 || !kernel_counts(fd, after))
        return false;
    const uint64_t own_syn = stream.role == Role::kConnector ? 1 : 0;
    const uint64_t its_syn = 1 - own_syn;
    const uint64_t its_written = peer.acknowledged - its_syn + peer.unacknowledged;
    const uint64_t own_written = after.acknowledged - own_syn + static_cast<uint64_t>(queued);
    return peer.acknowledged - its_syn <= after.received && before.received <= its_written &&
           before.acknowledged - own_syn <= peer.received && peer.received <= own_written;
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
    const int told = sys::getsockopt(fd, SOL_TCP, TCP_ULP, protocol, &size);
    const bool upper_protocol = told == 0 ? size > 0 && protocol[0] != 0 : told != -ENOPROTOOPT;
    const int status = sys::fcntl(fd, F_GETFL);
    return upper_protocol || (status >= 0 && (status & O_ASYNC) != 0) ||
           !is_off(fd, SOL_SOCKET, SO_OOBINLINE) || !is_off(fd, SOL_SOCKET, SO_PEEK_OFF, -1) ||
           !is_off(fd, SOL_SOCKET, SO_TIMESTAMP) || !is_off(fd, SOL_SOCKET, SO_TIMESTAMPNS) ||
           !is_off(fd, SOL_SOCKET, SO_TIMESTAMPING) || !is_off(fd, SOL_IP, IP_MINTTL) ||
           !is_off(fd, SOL_IPV6, IPV6_MINHOPCOUNT);
}

bool read_options(Stream& stream, int fd) {
    SharedHalf& shared = *stream.shared;
    int64_t receive_timeout;
    int64_t send_timeout;
    int low_water = 0;
    int locked = 0;
    int tells_rest = 0;
    int corked = 0;
    int user_timeout = 0;
    // A timeout that is not known would be a call that never ends.
    if (!timeout_of(fd, SO_RCVTIMEO, receive_timeout) || !timeout_of(fd, SO_SNDTIMEO, send_timeout) ||
        !option_of(fd, SOL_TCP, TCP_INQ, tells_rest) || !option_of(fd, SOL_TCP, TCP_CORK, corked) ||
        !option_of(fd, SOL_TCP, TCP_USER_TIMEOUT, user_timeout) ||
        !option_of(fd, SOL_SOCKET, SO_RCVLOWAT, low_water) || !option_of(fd, SOL_SOCKET, SO_BUF_LOCK, locked))
        return false;
    shared.tells_rest.store(tells_rest != 0, std::memory_order_relaxed);
    shared.corked.store(corked != 0, std::memory_order_relaxed);
    shared.user_timeout.store(static_cast<uint32_t>(user_timeout), std::memory_order_relaxed);
    shared.receive_timeout.store(receive_timeout, std::memory_order_relaxed);
    shared.send_timeout.store(send_timeout, std::memory_order_relaxed);
    shared.low_water.store(static_cast<uint32_t>(low_water), std::memory_order_relaxed);
    const int status = sys::fcntl(fd, F_GETFL);
    shared.nonblocking.store(status >= 0 && (status & O_NONBLOCK) != 0, std::memory_order_relaxed);
    // Sizes that were set before the socket was known here; since Linux 5.14 the kernel tells.
    constexpr int kSendLocked = 1;
    constexpr int kReceiveLocked = 2;
    const auto size_of = [&](bool set, int name) {
        int size = 0;
        if (set)
            option_of(fd, SOL_SOCKET, name, size);
        return size > 0 ? static_cast<uint64_t>(size) : kDefaultPart;
    };
    if (shared.send_size.load(std::memory_order_relaxed) == 0)
        shared.send_size.store(size_of((locked & kSendLocked) != 0, SO_SNDBUF), std::memory_order_relaxed);
    if (shared.receive_size.load(std::memory_order_relaxed) == 0)
        shared.receive_size.store(size_of((locked & kReceiveLocked) != 0, SO_RCVBUF),
                                  std::memory_order_relaxed);
    return true;
}

}  // namespace loopfast
