// getsockopt and setsockopt. Most options are a row of a table: Winsock's level and name, Linux's option, the
// form of the value. Those that mean something else here and there have functions of their own:
//
//   SO_REUSEADDR, SO_EXCLUSIVEADDRUSE   see bind_socket() in connection.cpp
//   IPV6_UNICAST_IF                     host byte order in Winsock, network byte order in Linux
//   SO_RCVBUF, SO_SNDBUF                Linux gives back twice what was set
//   SO_RCVTIMEO, SO_SNDTIMEO            milliseconds; ours, since all descriptors are non-blocking
//   SO_CONDITIONAL_ACCEPT, SO_PORT_SCALABILITY, TCP_BSDURGENT   kept; docs/winsock.md says what they do
#include "winsock/options.h"

#include "winsock/errors.h"
#include "winsock/native.h"
#include "winsock/probe.h"
#include "winsock/protocols.h"

namespace loopfast::winsock {

namespace {

enum class Form { kBoolean, kNumber };
struct Row {
    int level;
    int name;
    native::Option option;
    Form form;
    int family;  ///< Linux's, or 0
    int type;    ///< or 0
};
using native::Option;
constexpr Row kRows[] = {
    {SOL_SOCKET, SO_KEEPALIVE, Option::kKeepAlive, Form::kBoolean, 0, native::kStream},
    {SOL_SOCKET, SO_DONTROUTE, Option::kNoRouting, Form::kBoolean, 0, 0},
    {SOL_SOCKET, SO_BROADCAST, Option::kBroadcast, Form::kBoolean, 0, native::kDatagram},
    {SOL_SOCKET, SO_OOBINLINE, Option::kOobInline, Form::kBoolean, 0, native::kStream},
    {IPPROTO_TCP, TCP_NODELAY, Option::kNoDelay, Form::kBoolean, 0, native::kStream},
    {IPPROTO_TCP, TCP_KEEPALIVE, Option::kKeepIdle, Form::kNumber, 0, native::kStream},
    {IPPROTO_TCP, TCP_KEEPINTVL, Option::kKeepInterval, Form::kNumber, 0, native::kStream},
    {IPPROTO_TCP, TCP_KEEPCNT, Option::kKeepCount, Form::kNumber, 0, native::kStream},
    {IPPROTO_TCP, TCP_MAXSEG, Option::kMaxSegment, Form::kNumber, 0, native::kStream},
    {IPPROTO_IP, IP_TTL, Option::kTtl, Form::kNumber, 0, 0},
    {IPPROTO_IP, IP_TOS, Option::kTos, Form::kNumber, 0, 0},
    {IPPROTO_IP, IP_UNICAST_IF, Option::kUnicastInterface4, Form::kNumber, 0, 0},
    {IPPROTO_IPV6, IPV6_V6ONLY, Option::kOnly6, Form::kBoolean, native::kInet6, 0},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, Option::kHops, Form::kNumber, native::kInet6, 0},
    {IPPROTO_IPV6, IPV6_TCLASS, Option::kTrafficClass, Form::kNumber, native::kInet6, 0},
};

const Row* row_of(const Socket& socket, int level, int name) {
    for (const Row& row : kRows)
        if (row.level == level && row.name == name)
            return (row.family == 0 || row.family == socket.family) &&
                           (row.type == 0 || row.type == socket.type)
                       ? &row
                       : nullptr;
    return nullptr;
}

bool known_level(int level) {
    return level == SOL_SOCKET || level == IPPROTO_TCP || level == IPPROTO_IP || level == IPPROTO_IPV6 ||
           level == IPPROTO_UDP;
}

/// A BOOL may be given in one byte, a number in four.
int take(const char* value, int size, bool boolean, int& number) {
    const int least = boolean ? 1 : static_cast<int>(sizeof number);
    if (size < least)
        return WSAEFAULT;
    number = 0;
    memcpy(&number, value,
           static_cast<size_t>(size) < sizeof number ? static_cast<size_t>(size) : sizeof number);
    if (boolean)
        number = number != 0;
    return 0;
}

int set_buffer(Socket& socket, bool send, int size) {
    if (size < 0)
        return WSAEINVAL;
    (send ? socket.settings.send_buffer : socket.settings.receive_buffer) = size;
    const int result = native::set(socket.fd(), send ? Option::kSendBuffer : Option::kReceiveBuffer, size);
    return wsa_of_errno(result);
}

bool not_bound_yet(const Socket& socket) {
    const State state = socket.state.load(std::memory_order_acquire);
    return state == State::kFresh || state == State::kAccepting;
}

int update_accept_context(Socket& socket, const char* value, int size) {
    SOCKET handle;
    if (size < static_cast<int>(sizeof handle))
        return WSAEFAULT;
    memcpy(&handle, value, sizeof handle);
    int error;
    Ref<Socket> listener = find_socket(handle, error);
    if (error != 0)
        return error;
    if (listener->state.load(std::memory_order_acquire) != State::kListening)
        return WSAEINVAL;
    if (socket.look() != State::kConnected)
        return WSAENOTCONN;
    native::copy_options(listener->fd(), socket.fd());
    socket.settings = listener->settings;
    copy_buffer_sizes(socket, socket.fd());
    socket.context_missing.store(false, std::memory_order_relaxed);
    return 0;
}

/// @return WSAENOPROTOOPT if the option is none of these.
int set_of_socket(Socket& socket, int name, const char* value, int size) {
    Settings& settings = socket.settings;
    int number = 0;
    switch (name) {
    case SO_REUSEADDR:
    case SO_EXCLUSIVEADDRUSE: {
        const int error = take(value, size, true, number);
        if (error != 0)
            return error;
        bool& mine = name == SO_REUSEADDR ? settings.reuse_address : settings.exclusive;
        const bool other = name == SO_REUSEADDR ? settings.exclusive : settings.reuse_address;
        if (number != 0 && (other || (name == SO_EXCLUSIVEADDRUSE && !not_bound_yet(socket))))
            return WSAEINVAL;
        mine = number != 0;
        if (!socket.is_stream() && name == SO_REUSEADDR)
            return wsa_of_errno(native::set(socket.fd(), Option::kReuseAddress, number));
        return 0;
    }
    case SO_CONDITIONAL_ACCEPT:
    case SO_PORT_SCALABILITY:
    case SO_RANDOMIZE_PORT: {
        const int error = take(value, size, true, number);
        if (error != 0)
            return error;
        if (name == SO_CONDITIONAL_ACCEPT) {
            if (socket.state.load(std::memory_order_acquire) == State::kListening)
                return WSAEINVAL;
            settings.conditional_accept = number != 0;
        } else {
            if (!not_bound_yet(socket))
                return WSAEINVAL;
            (name == SO_PORT_SCALABILITY ? settings.port_scalability : settings.randomize_port) = number != 0;
        }
        return 0;
    }
    case SO_SNDBUF:
    case SO_RCVBUF: {
        const int error = take(value, size, false, number);
        return error != 0 ? error : set_buffer(socket, name == SO_SNDBUF, number);
    }
    case SO_SNDTIMEO:
    case SO_RCVTIMEO: {
        const int error = take(value, size, false, number);
        if (error != 0)
            return error;
        (name == SO_SNDTIMEO ? settings.send_timeout : settings.receive_timeout) = static_cast<DWORD>(number);
        return 0;
    }
    case SO_LINGER: {
        linger asked;
        if (!socket.is_stream())
            return WSAENOPROTOOPT;
        if (size < static_cast<int>(sizeof asked))
            return WSAEFAULT;
        memcpy(&asked, value, sizeof asked);
        return wsa_of_errno(native::set_linger(socket.fd(), asked.l_onoff != 0, asked.l_linger));
    }
    case SO_DONTLINGER: {
        if (!socket.is_stream())
            return WSAENOPROTOOPT;
        const int error = take(value, size, true, number);
        bool on;
        int seconds = 0;
        if (error != 0)
            return error;
        native::get_linger(socket.fd(), on, seconds);
        return wsa_of_errno(native::set_linger(socket.fd(), number == 0, seconds));
    }
    case SO_UPDATE_ACCEPT_CONTEXT:
        return update_accept_context(socket, value, size);
    case SO_UPDATE_CONNECT_CONTEXT:
        if (socket.look() != State::kConnected)
            return WSAENOTCONN;
        socket.context_missing.store(false, std::memory_order_relaxed);
        return 0;
    default:
        return WSAENOPROTOOPT;
    }
}

int set_option(Socket& socket, int level, int name, const char* value, int size) {
    if (!known_level(level))
        return WSAEINVAL;
    const bool without_value = level == SOL_SOCKET && name == SO_UPDATE_CONNECT_CONTEXT;
    if (!without_value && (size < 0 || !readable(value, static_cast<size_t>(size > 0 ? size : 1))))
        return WSAEFAULT;
    int number = 0;
    if (const Row* const row = row_of(socket, level, name)) {
        const int error = take(value, size, row->form == Form::kBoolean, number);
        if (error != 0)
            return error;
        const int result = native::set(socket.fd(), row->option, number);
        return result == 0 ? 0 : wsa_of_errno(result) == WSAEADDRNOTAVAIL ? WSAEINVAL : wsa_of_errno(result);
    }
    if (level == SOL_SOCKET)
        return set_of_socket(socket, name, value, size);
    if (level == IPPROTO_TCP && socket.is_stream() && (name == TCP_BSDURGENT || name == TCP_EXPEDITED_1122)) {
        const int error = take(value, size, true, number);
        if (error == 0)
            (name == TCP_BSDURGENT ? socket.settings.bsd_urgent : socket.settings.expedited) = number != 0;
        return error;
    }
    if (level == IPPROTO_IPV6 && name == IPV6_UNICAST_IF && socket.family == native::kInet6) {
        const int error = take(value, size, false, number);
        if (error != 0)
            return error;
        const int result = native::set(socket.fd(), Option::kUnicastInterface6,
                                       static_cast<int>(__builtin_bswap32(static_cast<uint32_t>(number))));
        return result == 0 ? 0 : wsa_of_errno(result) == WSAEADDRNOTAVAIL ? WSAEINVAL : wsa_of_errno(result);
    }
    if (level == IPPROTO_IP && name == IP_DONTFRAGMENT) {
        const int error = take(value, size, true, number);
        return error != 0
                   ? error
                   : wsa_of_errno(native::set(socket.fd(), Option::kDontFragment, number != 0 ? 2 : 0));
    }
    return WSAENOPROTOOPT;
}

/// @return 0 with a number, WSAENOPROTOOPT or an error.
int number_of(Socket& socket, int level, int name, int& number, bool& boolean) {
    const Settings& settings = socket.settings;
    boolean = false;
    if (const Row* const row = row_of(socket, level, name)) {
        boolean = row->form == Form::kBoolean;
        const int result = native::get(socket.fd(), row->option, number);
        if (boolean)
            number = number != 0;
        return wsa_of_errno(result);
    }
    if (level == IPPROTO_TCP && socket.is_stream() && (name == TCP_BSDURGENT || name == TCP_EXPEDITED_1122)) {
        boolean = true;
        number = name == TCP_BSDURGENT ? settings.bsd_urgent : settings.expedited;
        return 0;
    }
    if (level == IPPROTO_IPV6 && name == IPV6_UNICAST_IF && socket.family == native::kInet6) {
        const int result = native::get(socket.fd(), Option::kUnicastInterface6, number);
        number = static_cast<int>(__builtin_bswap32(static_cast<uint32_t>(number)));
        return wsa_of_errno(result);
    }
    if (level == IPPROTO_IP && name == IP_DONTFRAGMENT) {
        boolean = true;
        const int result = native::get(socket.fd(), Option::kDontFragment, number);
        number = number == 2;
        return wsa_of_errno(result);
    }
    if (level != SOL_SOCKET)
        return WSAENOPROTOOPT;
    boolean = true;
    switch (name) {
    case SO_REUSEADDR:
        number = settings.reuse_address;
        return 0;
    case SO_EXCLUSIVEADDRUSE:
        number = settings.exclusive;
        return 0;
    case SO_CONDITIONAL_ACCEPT:
        number = settings.conditional_accept;
        return 0;
    case SO_PORT_SCALABILITY:
        number = settings.port_scalability;
        return 0;
    case SO_RANDOMIZE_PORT:
        number = settings.randomize_port;
        return 0;
    case SO_ACCEPTCONN:
        number = socket.state.load(std::memory_order_acquire) == State::kListening;
        return 0;
    case SO_DONTLINGER: {
        bool on = false;
        int seconds;
        const int result = native::get_linger(socket.fd(), on, seconds);
        number = !on;
        return socket.is_stream() ? wsa_of_errno(result) : WSAENOPROTOOPT;
    }
    default:
        break;
    }
    boolean = false;
    switch (name) {
    case SO_SNDBUF:
    case SO_RCVBUF: {
        const int set = name == SO_SNDBUF ? settings.send_buffer : settings.receive_buffer;
        number = set;
        return set >= 0 ? 0
                        : wsa_of_errno(native::get(
                              socket.fd(), name == SO_SNDBUF ? Option::kSendBuffer : Option::kReceiveBuffer,
                              number));
    }
    case SO_SNDTIMEO:
        number = static_cast<int>(settings.send_timeout);
        return 0;
    case SO_RCVTIMEO:
        number = static_cast<int>(settings.receive_timeout);
        return 0;
    case SO_TYPE:
        number = socket.type;
        return 0;
    case SO_ERROR: {
        int error = 0;
        if (socket.look() == State::kFailed)
            error = socket.connect_error.exchange(0, std::memory_order_relaxed);
        if (error == 0) {
            native::get(socket.fd(), Option::kPendingError, number);
            error = wsa_of_errno(-number);
            if (error == WSAECONNRESET && socket.is_stream())
                socket.broken.store(error, std::memory_order_relaxed);
        }
        number = error;
        return 0;
    }
    case SO_MAX_MSG_SIZE:
        number = socket.is_stream() ? -1 : 65507;
        return socket.is_stream() ? WSAENOPROTOOPT : 0;
    case SO_CONNECT_TIME: {
        const bool connected = socket.look() == State::kConnected;
        number = connected ? static_cast<int>((now() - socket.connect_time.load(std::memory_order_relaxed)) /
                                              1'000'000'000)
                           : -1;
        return 0;
    }
    default:
        return WSAENOPROTOOPT;
    }
}

template <typename Value> int give(const Value& from, char* value, int* size) {
    if (*size < static_cast<int>(sizeof from))
        return WSAEFAULT;
    memcpy(value, &from, sizeof from);
    *size = sizeof from;
    return 0;
}

int get_option(Socket& socket, int level, int name, char* value, int* size) {
    if (!writable(size) || *size < 1 || !writable(value, static_cast<size_t>(*size)))
        return WSAEFAULT;
    if (!known_level(level))
        return WSAEINVAL;
    if (level == SOL_SOCKET && name == SO_LINGER && socket.is_stream()) {
        bool on = false;
        int seconds = 0;
        native::get_linger(socket.fd(), on, seconds);
        return give(linger{on, static_cast<USHORT>(seconds)}, value, size);
    }
    if (level == SOL_SOCKET && name == SO_PROTOCOL_INFOA)
        return give(protocol_info_a(socket), value, size);
    if (level == SOL_SOCKET && name == SO_PROTOCOL_INFOW)
        return give(protocol_info_w(socket), value, size);
    int number = 0;
    bool boolean;
    const int error = number_of(socket, level, name, number, boolean);
    if (error != 0)
        return error;
    if (boolean && *size < static_cast<int>(sizeof number))
        return give(static_cast<char>(number), value, size);
    return give(number, value, size);
}

}  // namespace

void copy_buffer_sizes(const Socket& socket, int fd) {
    if (socket.settings.send_buffer >= 0)
        native::set(fd, Option::kSendBuffer, socket.settings.send_buffer);
    if (socket.settings.receive_buffer >= 0)
        native::set(fd, Option::kReceiveBuffer, socket.settings.receive_buffer);
}

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSAAPI getsockopt(SOCKET s, int level, int name, char* value, int* size) {
    int error;
    if (level == SOL_SOCKET && name == SO_OPENTYPE) {  // of the thread, whatever the socket
        error = check_call();
        if (error == 0 && (!writable(size) || !writable(value, sizeof(int))))
            error = WSAEFAULT;
        return reported(error != 0 ? error : give(this_thread().open_type, value, size));
    }
    Ref<Socket> socket = find_socket(s, error);
    return reported(error != 0 ? error : get_option(*socket, level, name, value, size));
}
LOOPFAST_API int WSAAPI setsockopt(SOCKET s, int level, int name, const char* value, int size) {
    int error;
    if (level == SOL_SOCKET && name == SO_OPENTYPE) {
        error = check_call();
        if (error == 0 && (size < static_cast<int>(sizeof(int)) || !readable(value, sizeof(int))))
            error = WSAEFAULT;
        if (error == 0)
            memcpy(&this_thread().open_type, value, sizeof(int));
        return reported(error);
    }
    Ref<Socket> socket = find_socket(s, error);
    return reported(error != 0 ? error : set_option(*socket, level, name, value, size));
}
