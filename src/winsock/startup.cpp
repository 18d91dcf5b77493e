// WSAStartup and WSACleanup, the last error, and the end of the process.
#include "winsock/startup.h"

#include <cerrno>
#include <cstdio>

#include "winsock/native.h"
#include "winsock/probe.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

std::atomic<int> uses{0};

int end_use() {
    int now = uses.load(std::memory_order_relaxed);
    do {
        if (now <= 0)
            return WSANOTINITIALISED;
    } while (!uses.compare_exchange_weak(now, now - 1, std::memory_order_acq_rel));
    if (now == 1)
        for_each(
            Kind::kSocket, [](Object* object, void*) { close_handle(object->handle(), Kind::kSocket); },
            nullptr);
    return 0;
}

namespace {

/// Bytes that closed sockets still have to send outlive the program on Windows. Here the process waits for
/// the peers to take them, as long as they do so, and for so long when they do not.
constexpr int64_t kPatience = 2'000'000'000;

/// How many bytes sockets still keep.
size_t backlogs() {
    size_t count = 0;
    for_each_living(
        Kind::kSocket,
        [](Object* object, void* context) {
            auto& socket = static_cast<Socket&>(*object);
            Hold hold(socket.out.lock);
            if (socket.has_backlog()) {
                socket.run_out();
                *static_cast<size_t*>(context) += socket.backlog_size();
            }
        },
        &count);
    return count;
}

/// Whether the calls of native.cpp reach libloopfast.so and that reaches the C library. Neither is so in a
/// program that was linked with this library but not with that one, which the loader then finds behind the C
/// library.
bool is_linked_well() {
    static const bool result = [] {
        const int fd = native::event_create();
        // On what is no socket the fast path's code has an error of its own.
        const bool good = fd >= 0 && native::fast_path(fd, 1) == -ENOTSOCK;
        if (fd >= 0)
            native::close(fd);
        if (!good)
            fputs("loopfast: link with -lloopfast as well (pkg-config --libs loopfast-winsock)\n", stderr);
        return good;
    }();
    return result;
}

__attribute__((destructor)) void send_what_is_left() {
    size_t before = 0;
    int64_t since = now();
    for (;;) {
        const size_t left = backlogs();
        if (left == 0)
            return;
        if (left != before)
            since = now();
        else if (now() - since > kPatience)
            return;
        before = left;
        const timespec pause{0, 1'000'000};
        nanosleep(&pause, nullptr);
    }
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSAAPI WSAStartup(WORD version, LPWSADATA data) {
    if (LOBYTE(version) == 0)
        return WSAVERNOTSUPPORTED;
    if (!writable(data))
        return WSAEFAULT;
    if (in_callback())
        return WSAEINPROGRESS;
    if (!is_linked_well())
        return WSASYSNOTREADY;
    memset(data, 0, sizeof *data);
    const WORD highest = MAKEWORD(2, 2);
    const bool known =
        LOBYTE(version) == 1 ? HIBYTE(version) <= 1 : LOBYTE(version) == 2 && HIBYTE(version) <= 2;
    data->wVersion = known ? version : LOBYTE(version) == 1 ? MAKEWORD(1, 1) : highest;
    data->wHighVersion = highest;
    snprintf(data->szDescription, sizeof data->szDescription, "loopfast Winsock 2.2");
    snprintf(data->szSystemStatus, sizeof data->szSystemStatus, "Running");
    if (LOBYTE(version) == 1) {
        data->iMaxSockets = 32767;
        data->iMaxUdpDg = 65467;
    }
    uses.fetch_add(1, std::memory_order_acq_rel);
    return 0;
}

LOOPFAST_API int WSAAPI WSACleanup(void) {
    if (started() && in_callback())
        return reported(WSAEINPROGRESS);
    const int error = end_use();
    return error == 0 ? 0 : reported(error);
}

LOOPFAST_API int WSAAPI WSAGetLastError(void) { return static_cast<int>(last_error); }
LOOPFAST_API void WSAAPI WSASetLastError(int error) { last_error = static_cast<DWORD>(error); }
LOOPFAST_API DWORD WINAPI GetLastError(void) { return last_error; }
LOOPFAST_API void WINAPI SetLastError(DWORD error) { last_error = error; }

LOOPFAST_API int loopfast_descriptor(SOCKET s) {
    Ref<Socket> socket = find<Socket>(s);
    if (socket)
        return socket->fd();
    last_error = WSAENOTSOCK;
    return -1;
}
