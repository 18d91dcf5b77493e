// See native.h.
#include "winsock/native.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "loopfast.h"
#include "posix/door.h"
#include "winsock/lock.h"

namespace loopfast::winsock::native {

static_assert(kInet == AF_INET && kInet6 == AF_INET6 && kStream == SOCK_STREAM && kDatagram == SOCK_DGRAM);
static_assert(kTcp == IPPROTO_TCP && kUdp == IPPROTO_UDP);
static_assert(kOutOfBand == MSG_OOB && kPeek == MSG_PEEK && kDontRoute == MSG_DONTROUTE &&
              kTruncated == MSG_TRUNC);
static_assert(kIn == POLLIN && kPriority == POLLPRI && kOut == POLLOUT && kError == POLLERR &&
              kHangUp == POLLHUP && kPeerShut == POLLRDHUP);
static_assert(sizeof(Poll) == sizeof(pollfd) && offsetof(Poll, revents) == offsetof(pollfd, revents));
static_assert(kPassive == AI_PASSIVE && kCanonical == AI_CANONNAME && kNumericHost == AI_NUMERICHOST &&
              kV4Mapped == AI_V4MAPPED && kAll == AI_ALL && kConfigured == AI_ADDRCONFIG &&
              kNumericService == AI_NUMERICSERV);

namespace {

/// The C library's way of reporting, as a value or -errno.
template <typename Result> Result result_of(Result result) {
    return result < 0 ? static_cast<Result>(-errno) : result;
}

sockaddr* address_of(void* address) { return static_cast<sockaddr*>(address); }
const sockaddr* address_of(const void* address) { return static_cast<const sockaddr*>(address); }

struct Name {
    int level;
    int option;
};
Name name_of(Option option) {
    switch (option) {
    case Option::kReuseAddress:
        return {SOL_SOCKET, SO_REUSEADDR};
    case Option::kReusePort:
        return {SOL_SOCKET, SO_REUSEPORT};
    case Option::kKeepAlive:
        return {SOL_SOCKET, SO_KEEPALIVE};
    case Option::kNoRouting:
        return {SOL_SOCKET, SO_DONTROUTE};
    case Option::kBroadcast:
        return {SOL_SOCKET, SO_BROADCAST};
    case Option::kOobInline:
        return {SOL_SOCKET, SO_OOBINLINE};
    case Option::kSendBuffer:
        return {SOL_SOCKET, SO_SNDBUF};
    case Option::kReceiveBuffer:
        return {SOL_SOCKET, SO_RCVBUF};
    case Option::kPendingError:
        return {SOL_SOCKET, SO_ERROR};
    case Option::kAcceptsConnections:
        return {SOL_SOCKET, SO_ACCEPTCONN};
    case Option::kNoDelay:
        return {IPPROTO_TCP, TCP_NODELAY};
    case Option::kKeepIdle:
        return {IPPROTO_TCP, TCP_KEEPIDLE};
    case Option::kKeepInterval:
        return {IPPROTO_TCP, TCP_KEEPINTVL};
    case Option::kKeepCount:
        return {IPPROTO_TCP, TCP_KEEPCNT};
    case Option::kMaxSegment:
        return {IPPROTO_TCP, TCP_MAXSEG};
    case Option::kUserTimeout:
        return {IPPROTO_TCP, TCP_USER_TIMEOUT};
    case Option::kTtl:
        return {IPPROTO_IP, IP_TTL};
    case Option::kTos:
        return {IPPROTO_IP, IP_TOS};
    case Option::kDontFragment:
        return {IPPROTO_IP, IP_MTU_DISCOVER};
    case Option::kUnicastInterface4:
        return {IPPROTO_IP, IP_UNICAST_IF};
    case Option::kOnly6:
        return {IPPROTO_IPV6, IPV6_V6ONLY};
    case Option::kHops:
        return {IPPROTO_IPV6, IPV6_UNICAST_HOPS};
    case Option::kTrafficClass:
        return {IPPROTO_IPV6, IPV6_TCLASS};
    case Option::kUnicastInterface6:
        return {IPPROTO_IPV6, IPV6_UNICAST_IF};
    }
    return {-1, -1};
}

}  // namespace

int socket(int family, int type, int protocol) {
    return result_of(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}
int close(int fd) { return result_of(::close(fd)); }
int bind(int fd, const void* address, unsigned size) {
    return result_of(::bind(fd, address_of(address), size));
}
int listen(int fd, int backlog) { return result_of(::listen(fd, backlog)); }
int accept(int fd, void* address, unsigned* size) {
    return result_of(::accept4(fd, address_of(address), size, SOCK_NONBLOCK | SOCK_CLOEXEC));
}
int connect(int fd, const void* address, unsigned size) {
    return result_of(::connect(fd, address_of(address), size));
}
int disconnect(int fd) {
    sockaddr nothing{};
    nothing.sa_family = AF_UNSPEC;
    return result_of(::connect(fd, &nothing, sizeof nothing));
}
int shutdown(int fd, int how) { return result_of(::shutdown(fd, how)); }
int name(int fd, void* address, unsigned* size) {
    return result_of(::getsockname(fd, address_of(address), size));
}
int peer(int fd, void* address, unsigned* size) {
    return result_of(::getpeername(fd, address_of(address), size));
}
int set(int fd, Option option, int value) {
    const Name name = name_of(option);
    return result_of(::setsockopt(fd, name.level, name.option, &value, sizeof value));
}
int get(int fd, Option option, int& value) {
    const Name name = name_of(option);
    socklen_t size = sizeof value;
    value = 0;
    return result_of(::getsockopt(fd, name.level, name.option, &value, &size));
}
int set_linger(int fd, bool on, int seconds) {
    const linger value{on, seconds};
    return result_of(::setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, sizeof value));
}
int get_linger(int fd, bool& on, int& seconds) {
    linger value{};
    socklen_t size = sizeof value;
    const int result = result_of(::getsockopt(fd, SOL_SOCKET, SO_LINGER, &value, &size));
    on = value.l_onoff != 0;
    seconds = value.l_linger;
    return result;
}

void copy_options(int from, int to) {
    // Buffer sizes are not among them: reading them gives twice what was set, see options.cpp.
    for (const Option option : {Option::kKeepAlive, Option::kNoRouting, Option::kOobInline, Option::kNoDelay,
                                Option::kKeepIdle, Option::kKeepInterval, Option::kKeepCount, Option::kTtl,
                                Option::kTos, Option::kHops, Option::kTrafficClass}) {
        int wanted;
        int there;
        if (get(from, option, wanted) >= 0 && get(to, option, there) >= 0 && wanted != there)
            set(to, option, wanted);
    }
    bool on;
    int seconds;
    if (get_linger(from, on, seconds) >= 0)
        set_linger(to, on, seconds);
}

long send(int fd, const void* bytes, size_t size, int flags) {
    if (flags == 0)
        if (const long result = loopfast_door_send(fd, bytes, size); result != LONG_MIN) [[likely]]
            return result;
    return result_of(::send(fd, bytes, size, flags | MSG_DONTWAIT | MSG_NOSIGNAL));
}
long send_parts(int fd, const iovec* parts, size_t count, int flags, const void* to, unsigned to_size) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts);
    message.msg_iovlen = count;
    message.msg_name = const_cast<void*>(to);
    message.msg_namelen = to_size;
    return result_of(::sendmsg(fd, &message, flags | MSG_DONTWAIT | MSG_NOSIGNAL));
}
long receive(int fd, void* bytes, size_t size, int flags) {
    if (flags == 0)
        if (const long result = loopfast_door_receive(fd, bytes, size); result != LONG_MIN) [[likely]]
            return result;
    return result_of(::recv(fd, bytes, size, flags | MSG_DONTWAIT));
}
long receive_parts(int fd, const iovec* parts, size_t count, int& flags, void* from, unsigned* from_size) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts);
    message.msg_iovlen = count;
    message.msg_name = from;
    message.msg_namelen = from_size != nullptr ? *from_size : 0;
    const long result = result_of(::recvmsg(fd, &message, flags | MSG_DONTWAIT));
    if (result >= 0) {
        flags = message.msg_flags;
        if (from_size != nullptr)
            *from_size = message.msg_namelen;
    }
    return result;
}

int fast_path(int fd, int on) { return result_of(::ioctl(fd, SIO_LOOPBACK_FAST_PATH, &on)); }
int readable_bytes(int fd) {
    int value = 0;
    const int result = result_of(::ioctl(fd, FIONREAD, &value));
    return result < 0 ? result : value;
}
int waiting_connections(int fd) {
    tcp_info info{};
    socklen_t size = sizeof info;
    const int result = result_of(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
    return result < 0 ? result : static_cast<int>(info.tcpi_unacked);  // its meaning there
}
int unsent_bytes(int fd) {
    int value = 0;
    const int result = result_of(::ioctl(fd, SIOCOUTQ, &value));
    return result < 0 ? result : value;
}
int at_mark(int fd) {
    int value = 0;
    const int result = result_of(::ioctl(fd, SIOCATMARK, &value));
    return result < 0 ? result : value;
}

int poll(Poll* polls, unsigned count, int64_t timeout) {
    timespec time{static_cast<time_t>(timeout / 1'000'000'000), static_cast<long>(timeout % 1'000'000'000)};
    return result_of(
        ::ppoll(reinterpret_cast<pollfd*>(polls), count, timeout == kNever ? nullptr : &time, nullptr));
}
short ready_now(int fd, short events) {
    pollfd one{fd, events, 0};
    return ::poll(&one, 1, 0) > 0 ? one.revents : short{0};
}

int epoll_create() { return result_of(::epoll_create1(EPOLL_CLOEXEC)); }
int epoll_control(int set, int operation, int fd, uint32_t events, uint64_t data) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = data;
    return result_of(::epoll_ctl(set, operation, fd, &event));
}
int epoll_wait(int set, epoll_event* events, int capacity, int64_t timeout, bool may_spin) {
    if (!may_spin)
        return loopfast_door_wait(set, events, capacity, timeout);
    if (timeout == kNever || timeout == 0)
        return result_of(::epoll_wait(set, events, capacity, timeout == 0 ? 0 : -1));
    timespec time{static_cast<time_t>(timeout / 1'000'000'000), static_cast<long>(timeout % 1'000'000'000)};
    return result_of(::epoll_pwait2(set, events, capacity, &time, nullptr));
}

int look(int fd, int wanted) { return loopfast_door_look(fd, wanted); }
bool spin(int set, int64_t timeout, bool (*look)(void* context), void* context) {
    return loopfast_door_spin(set, timeout, look, context);
}
int epoll_glance(int set, epoll_event* events, int capacity) {
    return loopfast_door_glance(set, events, capacity);
}

int event_create() { return result_of(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
void event_signal(int fd) {
    const uint64_t one = 1;
    const int error = errno;
    (void)!::write(fd, &one, sizeof one);
    errno = error;
}
void event_drain(int fd) {
    uint64_t value;
    (void)!::read(fd, &value, sizeof value);
}

namespace {

Lookup lookup_of(int error) {
    switch (error) {
    case 0:
        return Lookup::kOk;
    case EAI_AGAIN:
        return Lookup::kAgain;
    case EAI_FAIL:
        return Lookup::kFail;
    case EAI_SERVICE:
        return Lookup::kService;
    case EAI_MEMORY:
        return Lookup::kMemory;
    case EAI_BADFLAGS:
        return Lookup::kFlags;
    case EAI_FAMILY:
        return Lookup::kFamily;
    case EAI_SOCKTYPE:
        return Lookup::kType;
    case EAI_OVERFLOW:
        return Lookup::kNoRoom;
    default:
        return Lookup::kNoName;
    }
}

}  // namespace

Lookup resolve(const char* node, const char* service, int flags, int family, int type, int protocol,
               Resolved* results, unsigned capacity, unsigned& count) {
    addrinfo hints{};
    hints.ai_flags = flags;
    hints.ai_family = family;
    hints.ai_socktype = type;
    hints.ai_protocol = protocol;
    addrinfo* list = nullptr;
    count = 0;
    const int error = ::getaddrinfo(node, service, &hints, &list);
    if (error != 0)
        return lookup_of(error);
    for (const addrinfo* entry = list; entry != nullptr && count < capacity; entry = entry->ai_next) {
        if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6)
            continue;
        Resolved& result = results[count++];
        result.family = entry->ai_family;
        result.type = entry->ai_socktype;
        result.protocol = entry->ai_protocol;
        result.flags = entry->ai_flags;
        result.size = entry->ai_addrlen;
        memcpy(result.address, entry->ai_addr, entry->ai_addrlen);
        result.canonical[0] = '\0';
        if (entry->ai_canonname != nullptr)
            strncat(result.canonical, entry->ai_canonname, sizeof result.canonical - 1);
    }
    ::freeaddrinfo(list);
    return count != 0 ? Lookup::kOk : Lookup::kNoName;
}

Lookup name_of(const void* address, unsigned size, char* host, size_t host_size, char* service,
               size_t service_size, bool numeric_host, bool name_required, bool numeric_service,
               bool datagram) {
    const int flags = (numeric_host ? NI_NUMERICHOST : 0) | (name_required ? NI_NAMEREQD : 0) |
                      (numeric_service ? NI_NUMERICSERV : 0) | (datagram ? NI_DGRAM : 0);
    return lookup_of(::getnameinfo(address_of(address), size, host, static_cast<socklen_t>(host_size),
                                   service, static_cast<socklen_t>(service_size), flags));
}

namespace {

constexpr size_t kEntryMemory = 4096;

template <size_t kSize> void keep(char (&to)[kSize], const char* from) {
    to[0] = '\0';
    strncat(to, from, kSize - 1);
}

bool known(const char* name, char* const* aliases, int number, const char* protocol, Known& found) {
    keep(found.name, name);
    keep(found.protocol, protocol);
    found.number = number;
    for (found.alias_count = 0; found.alias_count < Known::kMostAliases && *aliases != nullptr; ++aliases)
        keep(found.aliases[found.alias_count++], *aliases);
    return true;
}

bool known(const servent* entry, Known& found) {
    return entry != nullptr && known(entry->s_name, entry->s_aliases, entry->s_port, entry->s_proto, found);
}
bool known(const protoent* entry, Known& found) {
    return entry != nullptr && known(entry->p_name, entry->p_aliases, entry->p_proto, "", found);
}

}  // namespace

bool find_service(const char* name, const char* protocol, Known& found) {
    servent entry;
    servent* result = nullptr;
    char memory[kEntryMemory];
    return ::getservbyname_r(name, protocol, &entry, memory, sizeof memory, &result) == 0 &&
           known(result, found);
}
bool find_service(int port, const char* protocol, Known& found) {
    servent entry;
    servent* result = nullptr;
    char memory[kEntryMemory];
    return ::getservbyport_r(port, protocol, &entry, memory, sizeof memory, &result) == 0 &&
           known(result, found);
}
bool find_protocol(const char* name, Known& found) {
    protoent entry;
    protoent* result = nullptr;
    char memory[kEntryMemory];
    return ::getprotobyname_r(name, &entry, memory, sizeof memory, &result) == 0 && known(result, found);
}
bool find_protocol(int number, Known& found) {
    protoent entry;
    protoent* result = nullptr;
    char memory[kEntryMemory];
    return ::getprotobynumber_r(number, &entry, memory, sizeof memory, &result) == 0 && known(result, found);
}

bool parse(int family, const char* text, void* address) { return ::inet_pton(family, text, address) == 1; }
bool parse_loosely(const char* text, void* address) {
    return ::inet_aton(text, static_cast<in_addr*>(address)) != 0;
}
bool print(int family, const void* address, char* text, size_t size) {
    return ::inet_ntop(family, address, text, static_cast<socklen_t>(size)) != nullptr;
}

}  // namespace loopfast::winsock::native
