// The POSIX side: the only file of this door that sees <sys/socket.h> is native.cpp, since the names of the
// two worlds cannot meet in one source. Every function here calls the public name of libloopfast.so, so a
// socket of this door is a stream of the POSIX door; results are values or -errno. Families, levels and
// options are Linux's numbers; addresses are bytes in Linux's layout, which differs from the other one in the
// family only.
#pragma once

#include <sys/epoll.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace loopfast::winsock::native {

constexpr int kInet = 2;
constexpr int kInet6 = 10;
constexpr int kStream = 1;
constexpr int kDatagram = 2;
constexpr int kTcp = 6;
constexpr int kUdp = 17;

// Flags of send and receive.
constexpr int kOutOfBand = 0x1;
constexpr int kPeek = 0x2;
constexpr int kDontRoute = 0x4;
constexpr int kTruncated = 0x20;

// Poll bits.
constexpr short kIn = 0x1;
constexpr short kPriority = 0x2;
constexpr short kOut = 0x4;
constexpr short kError = 0x8;
constexpr short kHangUp = 0x10;
constexpr short kPeerShut = 0x2000;

/// Linux's options that this door uses, by meaning.
enum class Option {
    kReuseAddress,
    kReusePort,
    kKeepAlive,
    kNoRouting,
    kBroadcast,
    kOobInline,
    kSendBuffer,
    kReceiveBuffer,
    kPendingError,
    kAcceptsConnections,
    kNoDelay,
    kKeepIdle,
    kKeepInterval,
    kKeepCount,
    kMaxSegment,
    kUserTimeout,
    kTtl,
    kTos,
    kDontFragment,
    kUnicastInterface4,
    kOnly6,
    kHops,
    kTrafficClass,
    kUnicastInterface6,
};

struct Poll {
    int fd;
    short events;
    short revents;
};

int socket(int family, int type, int protocol);  ///< non-blocking, close-on-exec
int close(int fd);
int bind(int fd, const void* address, unsigned size);
int listen(int fd, int backlog);
int accept(int fd, void* address, unsigned* size);  ///< non-blocking, close-on-exec
int connect(int fd, const void* address, unsigned size);
int disconnect(int fd);  ///< connect to AF_UNSPEC
int shutdown(int fd, int how);
int name(int fd, void* address, unsigned* size);
int peer(int fd, void* address, unsigned* size);
int set(int fd, Option option, int value);
int get(int fd, Option option, int& value);
int set_linger(int fd, bool on, int seconds);
int get_linger(int fd, bool& on, int& seconds);
/// An option both of whose ends are POSIX programs, copied from one socket to another.
void copy_options(int from, int to);

/// All without waiting and without SIGPIPE.
long send(int fd, const void* bytes, size_t size, int flags);
long send_parts(int fd, const iovec* parts, size_t count, int flags, const void* to, unsigned to_size);
long receive(int fd, void* bytes, size_t size, int flags);
/// @param flags out: kTruncated when a datagram was cut.
long receive_parts(int fd, const iovec* parts, size_t count, int& flags, void* from, unsigned* from_size);

int fast_path(int fd, int on);    ///< ioctl SIO_LOOPBACK_FAST_PATH
int readable_bytes(int fd);       ///< FIONREAD
int waiting_connections(int fd);  ///< of a listening TCP socket
int unsent_bytes(int fd);         ///< SIOCOUTQ
int at_mark(int fd);              ///< SIOCATMARK

/// @param timeout nanoseconds, kNever for none. @return how many have revents.
int poll(Poll* polls, unsigned count, int64_t timeout);
short ready_now(int fd, short events);

int epoll_create();
int epoll_control(int set, int operation, int fd, uint32_t events, uint64_t data);
/// @param may_spin whether libloopfast may look for a while before it sleeps.
int epoll_wait(int set, epoll_event* events, int capacity, int64_t timeout, bool may_spin);

// Of a door's own, see posix/door.h.
/// Which of kIn and kOut a connection on the ring is ready for; -1 where a call must say.
int look(int fd, int wanted);
bool spin(int set, int64_t timeout, bool (*look)(void* context), void* context);
int epoll_glance(int set, epoll_event* events, int capacity);

int event_create();         ///< an eventfd, non-blocking
void event_signal(int fd);  ///< safe in a signal handler
void event_drain(int fd);

struct Resolved {
    int family, type, protocol, flags;
    unsigned size;
    unsigned char address[128];
    char canonical[256];
};
enum class Lookup { kOk, kNoName, kAgain, kFail, kService, kMemory, kFlags, kFamily, kType, kNoRoom };
/// getaddrinfo; gives up to `capacity` results, `count` how many there were.
Lookup resolve(const char* node, const char* service, int flags, int family, int type, int protocol,
               Resolved* results, unsigned capacity, unsigned& count);
constexpr int kPassive = 1, kCanonical = 2, kNumericHost = 4, kV4Mapped = 8, kAll = 16, kConfigured = 32,
              kNumericService = 0x400;
Lookup name_of(const void* address, unsigned size, char* host, size_t host_size, char* service,
               size_t service_size, bool numeric_host, bool name_required, bool numeric_service,
               bool datagram);
/// An entry of the services or protocols.
struct Known {
    static constexpr unsigned kMostAliases = 16;
    char name[64];
    char aliases[kMostAliases][64];
    unsigned alias_count;
    char protocol[16];  ///< of a service
    int number;         ///< of a service: its port, in network order
};
/// @return whether there is one. `protocol` may be null.
bool find_service(const char* name, const char* protocol, Known& found);
bool find_service(int port, const char* protocol, Known& found);
bool find_protocol(const char* name, Known& found);
bool find_protocol(int number, Known& found);
bool parse(int family, const char* text, void* address);
/// An IPv4 address of one to four parts, each decimal, octal or hexadecimal; blanks may follow.
bool parse_loosely(const char* text, void* address);
bool print(int family, const void* address, char* text, size_t size);

}  // namespace loopfast::winsock::native
