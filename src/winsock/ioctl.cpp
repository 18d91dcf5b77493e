// WSAIoctl and ioctlsocket. A control code never waits, so an overlapped one is over when the call returns:
// its completion has been told by then. The one exception is a code that nobody knows, which an overlapped
// call learns from the completion. The order of the checks is Windows', see tests/winsock/ioctl_test.cpp.
#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/extension.h"
#include "winsock/native.h"
#include "winsock/probe.h"

namespace loopfast::winsock {

namespace {

struct Control {
    DWORD code;
    const void* in;
    DWORD in_size;
    void* out;
    DWORD out_size;
    DWORD returned = 0;
};

/// A fixed-size input. @return 0 or WSAEFAULT.
template <typename Value> int input(const Control& control, Value& value) {
    if (control.in == nullptr || control.in_size < sizeof value ||
        !readable(static_cast<const char*>(control.in), sizeof value))
        return WSAEFAULT;
    memcpy(&value, control.in, sizeof value);
    return 0;
}

template <typename Value> int output(Control& control, const Value& value) {
    if (control.out == nullptr || control.out_size < sizeof value ||
        !writable(static_cast<char*>(control.out), sizeof value))
        return WSAEFAULT;
    memcpy(control.out, &value, sizeof value);
    control.returned = sizeof value;
    return 0;
}

int fast_path(Socket& socket, const Control& control) {
    DWORD on;
    if (const int error = input(control, on); error != 0)
        return error;
    if (control.out_size != 0)
        return WSAEINVAL;
    if (!socket.is_stream())
        return WSAEOPNOTSUPP;
    const int result = native::fast_path(socket.fd(), on != 0);
    if (result >= 0)
        socket.fast_path.store(on != 0, std::memory_order_relaxed);
    return wsa_of_errno(result);
}

int keep_alive(Socket& socket, const Control& control) {
    tcp_keepalive asked;
    if (const int error = input(control, asked); error != 0)
        return error;
    if (!socket.is_stream())
        return WSAEOPNOTSUPP;
    int result = native::set(socket.fd(), native::Option::kKeepAlive, asked.onoff != 0);
    if (result == 0 && asked.onoff != 0) {
        // Linux counts seconds; less than one is one.
        const auto seconds = [](ULONG milliseconds) {
            const ULONG whole = (milliseconds + 999) / 1000;
            return static_cast<int>(whole < 1 ? 1 : whole > 32767 ? 32767 : whole);
        };
        result = native::set(socket.fd(), native::Option::kKeepIdle, seconds(asked.keepalivetime));
        if (result == 0)
            result =
                native::set(socket.fd(), native::Option::kKeepInterval, seconds(asked.keepaliveinterval));
    }
    return wsa_of_errno(result);
}

int set_mode(Socket& socket, ULONG nonblocking) {
    if (nonblocking == 0 && has_selection(socket))
        return WSAEINVAL;
    socket.nonblocking.store(nonblocking != 0, std::memory_order_relaxed);
    return 0;
}

int extension(Control& control) {
    GUID name;
    if (const int error = input(control, name); error != 0)
        return error;
    void* const function = extension_function(name);
    if (function == nullptr)
        return WSAEINVAL;
    return output(control, function);
}

int readable_bytes(Socket& socket, ULONG& count) {
    const int result = native::readable_bytes(socket.fd());
    count = result > 0 ? static_cast<ULONG>(result) : 0;
    return result >= 0                                                         ? 0
           : socket.state.load(std::memory_order_relaxed) == State::kListening ? WSAEINVAL
                                                                               : wsa_of_errno(result);
}

/// TRUE when no urgent byte is waiting to be read before the next normal one: not what SIOCATMARK is called
/// elsewhere.
int at_mark(Socket& socket, ULONG& answer) {
    if (!socket.is_stream())
        return WSAEINVAL;
    answer = (native::ready_now(socket.fd(), native::kPriority) & native::kPriority) == 0 ||
             native::at_mark(socket.fd()) == 1;
    return 0;
}

/// @return true if the code is known; then `error` says how it went.
bool perform(Socket& socket, Control& control, int& error) {
    ULONG number = 0;
    switch (control.code) {
    case SIO_LOOPBACK_FAST_PATH:
        error = fast_path(socket, control);
        return true;
    case SIO_KEEPALIVE_VALS:
        error = keep_alive(socket, control);
        return true;
    case SIO_GET_EXTENSION_FUNCTION_POINTER:
        error = extension(control);
        return true;
    case static_cast<DWORD>(FIONBIO):
        error = input(control, number);
        if (error == 0)
            error = set_mode(socket, number);
        return true;
    case static_cast<DWORD>(FIONREAD):
        error = readable_bytes(socket, number);
        if (error == 0)
            error = output(control, number);
        return true;
    case static_cast<DWORD>(SIOCATMARK):
        error = at_mark(socket, number);
        if (error == 0)
            error = output(control, number);
        return true;
    case SIO_BASE_HANDLE:
    case SIO_BSP_HANDLE:
        error = output(control, static_cast<SOCKET>(socket.handle()));
        return true;
    case SIO_UDP_CONNRESET:
        // Linux tells a datagram socket of an unreachable port only when it is connected.
        error = input(control, number);
        if (error == 0 && socket.is_stream())
            error = WSAEOPNOTSUPP;
        return true;
    default:
        return false;
    }
}

int control(SOCKET s, Control& asked, DWORD* returned, OVERLAPPED* overlapped,
            LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return error;
    if (!writable(returned))
        return WSAEFAULT;
    const bool is_overlapped = socket->overlapped && (overlapped != nullptr || routine != nullptr);
    if (!is_overlapped) {
        if (!perform(*socket, asked, error))
            error = WSAEOPNOTSUPP;
        *returned = asked.returned;
        return error;
    }
    // Nothing of the OVERLAPPED changes when the call fails at once; and what is wrong with it must be found
    // before something is done.
    if (overlapped == nullptr || (routine != nullptr && socket->port() != nullptr))
        return WSAEINVAL;
    if (!writable(overlapped))
        return WSAEFAULT;
    const auto event = reinterpret_cast<UINT_PTR>(overlapped->hEvent) & ~UINT_PTR{3};
    if (routine == nullptr && event != 0 && !find<Event>(event))
        return WSA_INVALID_HANDLE;
    const bool known = perform(*socket, asked, error);
    if (known && error != 0) {
        if (error != WSAEFAULT)
            *returned = 0;
        return error;
    }
    Target target;
    error = make_target(*socket, overlapped, routine, target);
    if (error != 0)
        return error;
    if (known)
        *returned = asked.returned;
    Operation* operation = nullptr;
    if (routine != nullptr) {
        Hold hold(socket->in.lock);
        operation = socket->new_operation(socket->in, target, Work::kReceive);
    }
    // How much was returned stands in `returned` only, as on Windows.
    complete(operation != nullptr ? operation->target : target, operation, known ? 0 : WSAEOPNOTSUPP, 0, 0,
             known);
    return known ? 0 : WSA_IO_PENDING;
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSAAPI WSAIoctl(SOCKET s, DWORD code, LPVOID in, DWORD in_size, LPVOID out, DWORD out_size,
                                 LPDWORD returned, LPWSAOVERLAPPED overlapped,
                                 LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    Control asked{code, in, in_size, out, out_size};
    const int error = control(s, asked, returned, overlapped, routine);
    last_error = static_cast<DWORD>(error);
    return error == 0 ? 0 : SOCKET_ERROR;
}

LOOPFAST_API int WSAAPI ioctlsocket(SOCKET s, int code, u_long* argument) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error == 0 && !writable(argument))
        error = WSAEFAULT;
    if (error == 0) {
        switch (code) {
        case FIONBIO:
            error = set_mode(*socket, *argument);
            break;
        case FIONREAD:
            error = readable_bytes(*socket, *argument);
            break;
        case SIOCATMARK:
            error = at_mark(*socket, *argument);
            break;
        default:
            error = WSAEOPNOTSUPP;
        }
    }
    return reported(error);
}
