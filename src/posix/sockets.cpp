// The calls that make, connect, accept, end and configure sockets.
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <climits>
#include <cstddef>
#include <cstring>

#include "base/clock.h"
#include "link/possession.h"
#include "policy/policy.h"
#include "posix/posix.h"
#include "posix/rings.h"
#include "stream/sleep.h"

#ifndef SOL_TCP
#define SOL_TCP 6
#endif
#ifndef TCP_INQ
#define TCP_INQ 36
#endif

namespace loopfast {

namespace {

bool internet(int family) { return family == AF_INET || family == AF_INET6; }

/// The listening side's port and address decide which rules apply.
Decision decision_for(int fd, Role role) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    auto* const address = reinterpret_cast<sockaddr*>(&storage);
    Endpoint endpoint;
    const int result = role == Role::kConnector ? sys::getpeername(fd, address, &size)
                                                : sys::getsockname(fd, address, &size);
    if (result < 0 || !to_endpoint(address, size, endpoint))
        return decide(0);
    return decide(__builtin_bswap16(endpoint.port), endpoint.family, endpoint.ip);
}

/// Begins a connection on `stream` if it is opted in by itself or by the process.
void begin(Stream& stream, int fd, Role role, bool marked) {
    SharedHalf& shared = *stream.shared;
    const Decision decision = decide_needs_port() ? decision_for(fd, role) : decide(0);
    const bool on = (marked || decision.on) && !decision.forbidden &&
                    shared.opted_out.load(std::memory_order_relaxed) == 0;
    if (on && ring_in_use()) {
        stream.role = role;
        refuse(stream, Reason::kOption);
        return;
    }
    if (on) {
        install_fault_handlers();
        begin_connection(stream, fd, role, marked ? 0 : decision.threshold);
        return;
    }
    stream.role = role;
    refuse(stream, Reason::kPolicy);
}

}  // namespace

void socket_made(int fd, int family, int type, int protocol) {
    constexpr int kTypeMask = 0xf;
    if (any_opted_in() && internet(family) && (type & kTypeMask) == SOCK_STREAM &&
        (protocol == 0 || protocol == IPPROTO_TCP))
        make_stream(fd);
}

void accepted(int listener, int fd, int family) {
    Stream* const parent = find_stream(listener);
    const bool marked = parent != nullptr && parent->shared->opted_in.load(std::memory_order_relaxed) != 0;
    const bool unmarked = parent != nullptr && parent->shared->opted_out.load(std::memory_order_relaxed) != 0;
    if (!internet(family) || unmarked || (!marked && !any_opted_in()) || setups_forbidden())
        return;
    Stream* const stream = make_stream(fd);
    if (stream == nullptr)
        return;
    if (marked)
        stream->shared->opted_in.store(1, std::memory_order_relaxed);
    stream->shared->send_size.store(parent != nullptr ? parent->shared->send_size.load() : 0);
    stream->shared->receive_size.store(parent != nullptr ? parent->shared->receive_size.load() : 0);
    begin(*stream, fd, Role::kAcceptor, marked);
}

void connecting(int fd, const sockaddr* address, socklen_t size) {
    note_own_call();
    Stream* const stream = find_stream(fd);
    Endpoint endpoint;
    if (stream == nullptr || stream->state() != State::kIdle || !to_endpoint(address, size, endpoint))
        return;
    begin(*stream, fd, Role::kConnector, stream->shared->opted_in.load(std::memory_order_relaxed) != 0);
}

void begun_by_sending(Stream& stream, int fd, ssize_t sent) {
    const int error = errno;
    if (stream.state() != State::kIdle || (sent < 0 && error != EINPROGRESS && error != EINTR))
        return;
    if (sent > 0)
        stream.shared->kernel_out.fetch_add(static_cast<uint64_t>(sent), std::memory_order_relaxed);
    begin(stream, fd, Role::kConnector, stream.shared->opted_in.load(std::memory_order_relaxed) != 0);
    errno = error;
}

LOOPFAST_PUBLIC int socket(int family, int type, int protocol) noexcept {
    const int fd = sys::socket(family, type, protocol);
    if (fd < 0)
        return returned<int>(fd);
    appeared(fd);
    socket_made(fd, family, type, protocol);
    return fd;
}

namespace {

/// The one address that ends a connection, as the kernel recognises it.
bool is_nowhere(const sockaddr* address, socklen_t size) {
    return size >= sizeof address->sa_family && readable(address, sizeof address->sa_family) &&
           address->sa_family == AF_UNSPEC;
}

}  // namespace

LOOPFAST_PUBLIC int connect(int fd, const sockaddr* address, socklen_t size) {
    Stream* const stream = find_stream(fd);
    note_kernel_lane_call();
    if (stream == nullptr)
        return real::connect(fd, address, size);
    const bool disconnects = is_nowhere(address, size);
    const int result = real::connect(fd, address, size);
    const int error = errno;
    if (disconnects && result == 0)
        disconnected(*stream);
    // Under way counts: over loopback a non-blocking connect has often succeeded by now, and an
    // interrupted one goes on by itself.
    if (result == 0 || error == EINPROGRESS || error == EINTR)
        connecting(fd, address, size);
    errno = error;
    return result;
}

namespace {

int family_of(int fd) {
    int family = AF_UNSPEC;
    socklen_t size = sizeof family;
    sys::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    return family;
}

/// The family of a connection where the program wanted the peer's name: that of its listener, which is asked
/// for once.
int accepted_family(Stream* parent, int fd) {
    if (parent == nullptr)
        return family_of(fd);
    int family = parent->accepted_family.load(std::memory_order_relaxed);
    if (family == AF_UNSPEC) {
        family = family_of(fd);
        parent->accepted_family.store(family, std::memory_order_relaxed);
    }
    return family;
}

template <typename Accept> int accept_with(int listener, sockaddr* address, socklen_t* size, Accept accept) {
    Stream* const parent = find_stream(listener);
    const bool concerned = parent != nullptr || any_opted_in();
    // Where the program wants no name, the kernel fills one of ours: the family is all we need. Otherwise
    // the arguments are the kernel's to judge.
    sockaddr_storage own{};
    socklen_t own_size = sizeof own;
    const bool wanted = address != nullptr || !concerned;
    const int fd = wanted ? accept(address, size) : accept(reinterpret_cast<sockaddr*>(&own), &own_size);
    if (fd < 0)
        return fd;
    const int error = errno;
    appeared(fd);
    if (concerned)
        accepted(listener, fd, wanted ? accepted_family(parent, fd) : own.ss_family);
    errno = error;
    return fd;
}

}  // namespace

LOOPFAST_PUBLIC int accept(int listener, sockaddr* address, socklen_t* size) {
    return accept_with(listener, address, size,
                       [&](sockaddr* a, socklen_t* s) { return real::accept(listener, a, s); });
}

LOOPFAST_PUBLIC int accept4(int listener, sockaddr* address, socklen_t* size, int flags) {
    return accept_with(listener, address, size,
                       [&](sockaddr* a, socklen_t* s) { return real::accept4(listener, a, s, flags); });
}

LOOPFAST_PUBLIC int shutdown(int fd, int how) noexcept {
    Stream* const stream = find_stream(fd);
    if (stream == nullptr)
        return real::shutdown(fd, how);
    if (how < SHUT_RD || how > SHUT_RDWR)
        return real::shutdown(fd, how);
    note_own_call();
    note_kernel_lane_call();
    const int now = before_shutdown(*stream, fd, how);
    tell_sets(*stream, 0, SetHooks::kDue);
    const int result = now == kShutLater ? 0 : real::shutdown(fd, now);
    if (result == 0)
        after_shutdown(*stream, how);
    tell_sets(*stream, 0, SetHooks::kIfStillDue);  // the kernel wakes its sleepers even where it fails
    return result;
}

namespace {

int64_t duration_of(const void* value, socklen_t size) {
    timeval time{};
    if (size < sizeof time)
        return kForever;
    memcpy(&time, value, sizeof time);
    const bool forever = (time.tv_sec == 0 && time.tv_usec == 0) || time.tv_sec >= kForever / 1'000'000'000;
    if (forever)
        return kForever;
    return time.tv_sec < 0 ? 0 : time.tv_sec * 1'000'000'000LL + time.tv_usec * 1000LL;  // negative: at once
}

/// What the kernel made of a size is what counts: it doubles and clamps.
uint64_t size_of(int fd, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    return sys::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 && value > 0
               ? static_cast<uint64_t>(value)
               : 0;
}

/// Who sleeps on this end looks again. All of them have the kernel's socket among what they sleep on, and to
/// set this option makes it tell of room, whatever the value.
void wake_own_sleepers(const Stream& stream, int fd) {
    if (!stream.fused())
        return;
    unsigned least = 0;
    socklen_t size = sizeof least;
    if (sys::getsockopt(fd, SOL_TCP, TCP_NOTSENT_LOWAT, &least, &size) == 0)
        sys::insisting([&] { return sys::setsockopt(fd, SOL_TCP, TCP_NOTSENT_LOWAT, &least, size); });
}

void option_set(Stream& stream, int fd, int level, int name, const void* value, socklen_t size) {
    SharedHalf& shared = *stream.shared;
    if (level == SOL_TCP && name == TCP_INQ) {
        int on = 0;
        socklen_t length = sizeof on;
        if (sys::getsockopt(fd, SOL_TCP, TCP_INQ, &on, &length) == 0)
            shared.tells_rest.store(on != 0, std::memory_order_relaxed);
    }
    if (level == SOL_TCP && name == TCP_USER_TIMEOUT) {
        int milliseconds = 0;
        socklen_t length = sizeof milliseconds;
        if (sys::getsockopt(fd, SOL_TCP, TCP_USER_TIMEOUT, &milliseconds, &length) == 0)
            shared.user_timeout.store(static_cast<uint32_t>(milliseconds), std::memory_order_relaxed);
    }
    if (level == SOL_TCP && (name == TCP_CORK || name == TCP_NODELAY) && size >= sizeof(int)) {
        // As the kernel has just read it. To ask would cost connections that send little a tenth of their
        // time.
        int on = 0;
        memcpy(&on, value, sizeof on);
        if (name == TCP_CORK)
            shared.corked.store(on != 0, std::memory_order_seq_cst);  // Dekker with hold_back()
        // What the kernel holds is sent by what takes the cork away, and by TCP_NODELAY whatever the cork is.
        if ((on != 0) == (name == TCP_NODELAY) && stream.fused())
            show_held(stream);
    }
    if (level != SOL_SOCKET)
        return;
    switch (name) {
    case SO_RCVTIMEO:
    case SO_RCVTIMEO_NEW:  // the same on 64 bits
        shared.receive_timeout.store(duration_of(value, size), std::memory_order_relaxed);
        break;
    case SO_SNDTIMEO:
    case SO_SNDTIMEO_NEW:
        shared.send_timeout.store(duration_of(value, size), std::memory_order_relaxed);
        break;
    case SO_RCVLOWAT: {
        int bytes = 0;
        socklen_t length = sizeof bytes;
        if (sys::getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, &length) == 0)
            shared.low_water.store(static_cast<uint32_t>(bytes), std::memory_order_relaxed);
        if (stream.segment && (readiness(stream, fd, Freshness::kRecent) & POLLIN) != 0)
            tell_sets(stream, POLLIN | POLLRDNORM | POLLPRI | POLLRDBAND, SetHooks::kNow);
        wake_own_sleepers(stream, fd);
        break;
    }
    case SO_SNDBUF:
    case SO_SNDBUFFORCE:
        shared.send_size.store(size_of(fd, SO_SNDBUF), std::memory_order_relaxed);
        wake_own_sleepers(stream, fd);  // the kernel woke them when we did not know of the size yet
        break;
    case SO_RCVBUF:
    case SO_RCVBUFFORCE:
        shared.receive_size.store(size_of(fd, SO_RCVBUF), std::memory_order_relaxed);
        if (stream.fused())
            stream.our_words().receive_size.store(shared.receive_size.load(), std::memory_order_relaxed);
        break;
    default:
        break;
    }
}

/// The kernel's counts, and what went through the rings.
void correct_tcp_info(Stream& stream, void* value, socklen_t size) {
    const Watching watching(stream);
    if (!watching.alive())
        return;  // never on the ring, or closed under us
    const Carried ring = carried_by_ring(stream);
    const auto add = [&](size_t offset, uint64_t bytes) {
        uint64_t count;
        if (offset + sizeof count > size)
            return;
        memcpy(&count, static_cast<char*>(value) + offset, sizeof count);
        count += bytes;
        memcpy(static_cast<char*>(value) + offset, &count, sizeof count);
    };
    const uint64_t unsent = stream.fused() ? bytes_unsent(stream) : 0;
    if (offsetof(tcp_info, tcpi_notsent_bytes) + sizeof(uint32_t) <= size) {
        auto* const told = static_cast<char*>(value) + offsetof(tcp_info, tcpi_notsent_bytes);
        uint32_t count;
        memcpy(&count, told, sizeof count);
        count += static_cast<uint32_t>(unsent);
        memcpy(told, &count, sizeof count);
    }
    add(offsetof(tcp_info, tcpi_bytes_acked), ring.sent);
    add(offsetof(tcp_info, tcpi_bytes_sent), ring.sent);
    add(offsetof(tcp_info, tcpi_bytes_received), ring.received);
}

}  // namespace

namespace {

// TCP_AO_ADD_KEY, TCP_AO_DEL_KEY, TCP_AO_INFO
constexpr int kAuthenticationFirst = 38;
constexpr int kAuthenticationLast = 40;

/// Options that lead what is sent another way.
bool leads(int level, int name) {
    return level == SOL_SOCKET && (name == SO_MARK || name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX);
}

/// Options whose effect is on what the kernel's socket sends and receives.
bool is_for_kernel(int level, int name) {
    // With most of these the kernel may drop what the peer sends, or what it gets, from here on.
    if (level == SOL_TCP)
        return name == TCP_ULP || name == TCP_REPAIR || name == TCP_MD5SIG || name == TCP_MD5SIG_EXT ||
               (name >= kAuthenticationFirst && name <= kAuthenticationLast);
    if (level == SOL_IP)
        return name == IP_MINTTL || name == IP_OPTIONS || name == IP_IPSEC_POLICY || name == IP_XFRM_POLICY;
    if (level == SOL_IPV6)
        return name == IPV6_MINHOPCOUNT || name == IPV6_IPSEC_POLICY || name == IPV6_XFRM_POLICY;
    if (level != SOL_SOCKET)
        return false;
    switch (name) {
    case SO_TIMESTAMP:
    case SO_TIMESTAMPNS:
    case SO_TIMESTAMPING:
    case SO_TIMESTAMP_NEW:
    case SO_TIMESTAMPNS_NEW:
    case SO_TIMESTAMPING_NEW:
    case SO_PEEK_OFF:
    case SO_ATTACH_FILTER:
    case SO_ATTACH_BPF:
        return true;
    default:
        return false;
    }
}

}  // namespace

namespace {

/// What a number among the options says; the filters are none.
bool number_of(int fd, int level, int name, int& value) {
    socklen_t length = sizeof value;
    return (level != SOL_SOCKET || (name != SO_ATTACH_FILTER && name != SO_ATTACH_BPF)) &&
           sys::getsockopt(fd, level, name, &value, &length) == 0 && length == sizeof value;
}

/// Whether setting one of them can change anything: not where the kernel refuses it, nor to the value that it
/// has. A socket that nobody knows is asked, so that what the program passed is the kernel's to read.
bool would_change(int fd, int level, int name, const void* value, socklen_t size) {
    if (setups_forbidden())
        return true;
    const int unknown = sys::socket(family_of(fd), SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (unknown < 0)
        return true;
    const int result = sys::setsockopt(unknown, level, name, value, size);
    int wanted = 0;
    int now = 0;
    const bool changes = result >= 0 ? !number_of(unknown, level, name, wanted) ||
                                           !number_of(fd, level, name, now) || wanted != now
                                     : result == -ENOTCONN;  // what wants a connection
    sys::close(unknown);
    return changes;
}

}  // namespace

LOOPFAST_PUBLIC int setsockopt(int fd, int level, int name, const void* value, socklen_t size) noexcept {
    Stream* const stream = find_stream(fd);
    if (stream != nullptr && belongs_to_sign(level, name)) [[unlikely]]
        keep_options_private(*stream);
    if (stream != nullptr && is_for_kernel(level, name) && would_change(fd, level, name, value, size))
        [[unlikely]] {
        if (level == SOL_SOCKET && (name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF)) {
            note_socket_filter(*stream);
            part_with(*stream, fd, Reason::kFilter);
        } else {
            leave_ring(*stream, fd);
        }
    }
    note_own_call();  // a low water mark, say, of a stream that is not fused
    const int result = real::setsockopt(fd, level, name, value, size);
    if (result == 0 && stream != nullptr)
        option_set(*stream, fd, level, name, value, size);
    if (result == 0 && stream != nullptr && stream->fused() && leads(level, name)) [[unlikely]]
        judge_anew(*stream, fd);
    return result;
}

namespace {

/// An error is told once, whoever asks: what a receive finds after it is the end.
void error_was_told(Stream& stream, const void* value, socklen_t size) {
    int error = 0;
    memcpy(&error, value, size < sizeof error ? size : sizeof error);
    if (error != ECONNRESET && error != EPIPE && error != ETIMEDOUT)
        return;  // none, or one that the connection survives
    stream.shared->send_to_kernel.store(1, std::memory_order_relaxed);
    forget_kernel_readiness(stream);
}

}  // namespace

namespace {

/// TCP_ZEROCOPY_RECEIVE maps what the kernel's socket has received. Where the stream has left the ring by now
/// that is all there is. What of a peer that has ended nobody can send again is told of as bytes that are to
/// be read: they come before those of the kernel, which is not asked. @return false when it is.
bool zerocopy_by_reading(Stream& stream, int fd, void* value, socklen_t* size, int& result) {
    if (stream.state() == State::kKernel)
        return false;
    leave_ring(stream, fd);
    socklen_t given = 0;
    if (!stream.fused() || !stream.in_in_ring() || stream.reader().available() == 0 ||
        !readable(size, sizeof *size))
        return false;
    memcpy(&given, size, sizeof given);
    // The option has grown; this is the least that it has.
    constexpr socklen_t kLeast = offsetof(tcp_zerocopy_receive, recv_skip_hint) + sizeof(uint32_t);
    tcp_zerocopy_receive request{};
    if (given < kLeast || given > INT_MAX)
        return false;
    if (given > sizeof request)
        given = sizeof request;
    const iovec part{value, given};
    if (!Buffers(&part, 1).copy_in(&request, given))
        return false;
    if (request.address % static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) != 0)
        return false;  // the kernel refuses it, whatever there is
    const uint64_t there = bytes_waiting(stream, fd);
    request.length = 0;
    request.recv_skip_hint = static_cast<uint32_t>(there);
    request.inq = static_cast<uint32_t>(there);
    request.err = 0;
    request.copybuf_len = 0;
    request.msg_flags = 0;
    const bool told = Buffers(&part, 1).copy_out(&request, given) && put(size, given) == 0;
    result = returned<int>(told ? 0 : -EFAULT);
    return true;
}

}  // namespace

LOOPFAST_PUBLIC int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
    if (belongs_to_sign(level, name)) [[unlikely]]
        if (Stream* const stream = find_stream(fd))
            keep_options_private(*stream);
    if (level == SOL_TCP && name == TCP_ZEROCOPY_RECEIVE) [[unlikely]]
        if (Stream* const stream = find_stream(fd))
            if (int result; zerocopy_by_reading(*stream, fd, value, size, result))
                return result;
    const int result = real::getsockopt(fd, level, name, value, size);
    if (result == 0 && level == SOL_TCP && name == TCP_INFO)
        if (Stream* const stream = find_stream(fd))
            correct_tcp_info(*stream, value, *size);
    if (result == 0 && level == SOL_SOCKET && name == SO_ERROR)
        if (Stream* const stream = fused_stream_of(find_stream(fd)))
            error_was_told(*stream, value, *size);
    return result;
}

}  // namespace loopfast
