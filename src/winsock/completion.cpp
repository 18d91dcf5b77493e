// The public functions of completion ports, and of results and cancellation.
#include "winsock/errors.h"
#include "winsock/probe.h"
#include "winsock/socket.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

namespace {

/// Few packets are asked for at once; more than these in one call come in several.
constexpr ULONG kAtOnce = 64;

/// @param status receives the operation's, if it is over.
int overlapped_result(SOCKET s, OVERLAPPED* overlapped, DWORD* bytes, bool wait, DWORD* flags,
                      NTSTATUS& status) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return error;
    if (overlapped == nullptr)
        return WSA_INVALID_PARAMETER;
    if (!writable_quickly(overlapped) || !writable_quickly(bytes) || !writable_quickly(flags))
        return WSAEFAULT;
    status = static_cast<NTSTATUS>(__atomic_load_n(&overlapped->Internal, __ATOMIC_ACQUIRE));
    if (status == STATUS_PENDING) {
        if (wait)
            wait_for_overlapped(overlapped, *socket->reactor());
        else
            return WSA_IO_INCOMPLETE;
        status = static_cast<NTSTATUS>(__atomic_load_n(&overlapped->Internal, __ATOMIC_ACQUIRE));
    }
    *bytes = static_cast<DWORD>(overlapped->InternalHigh);
    *flags = overlapped->Offset;
    return wsa_of_status(status);
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API HANDLE WINAPI CreateIoCompletionPort(HANDLE file, HANDLE existing, ULONG_PTR key,
                                                  DWORD threads) {
    Ref<Port> port;
    if (existing != nullptr) {
        port = find<Port>(existing);
        if (!port || file == INVALID_HANDLE_VALUE) {
            last_error = port ? ERROR_INVALID_PARAMETER : ERROR_INVALID_HANDLE;
            return nullptr;
        }
    }
    Ref<Socket> socket;
    if (file != INVALID_HANDLE_VALUE) {
        socket = find<Socket>(file);
        if (!socket || !socket->overlapped) {
            last_error = socket ? ERROR_INVALID_PARAMETER : ERROR_INVALID_HANDLE;
            return nullptr;
        }
    }
    UINT_PTR made = 0;
    if (!port) {
        auto* const fresh = new Port(threads);
        made = open_handle(fresh);
        if (made != 0)
            port = find<Port>(made);
        if (made == 0 || !port || !port->reactor.start()) {
            if (made != 0)
                close_handle(made, Kind::kPort);
            last_error = ERROR_NOT_ENOUGH_MEMORY;
            return nullptr;
        }
    }
    if (socket) {
        const DWORD error = socket->associate(port.get(), key);
        if (error != 0) {
            if (made != 0)
                close_handle(made, Kind::kPort);
            last_error = error;
            return nullptr;
        }
    }
    return reinterpret_cast<HANDLE>(port->handle());
}

LOOPFAST_API BOOL WINAPI GetQueuedCompletionStatus(HANDLE handle, LPDWORD bytes, PULONG_PTR key,
                                                   LPOVERLAPPED* overlapped, DWORD milliseconds) {
    Ref<Port> port = find<Port>(handle);
    if (!writable_quickly(overlapped) || !writable_quickly(bytes) || !writable_quickly(key))
        return truth(ERROR_NOACCESS);
    *overlapped = nullptr;
    if (!port)
        return truth(ERROR_INVALID_HANDLE);
    Packet packet;
    ULONG count;
    const DWORD result = port->take(&packet, 1, count, deadline_of(milliseconds), false);
    if (result != 0)
        return truth(static_cast<int>(result));
    *bytes = packet.bytes;
    *key = packet.key;
    *overlapped = packet.overlapped;
    return truth(static_cast<int>(dos_of_status(packet.status)));
}

LOOPFAST_API BOOL WINAPI GetQueuedCompletionStatusEx(HANDLE handle, LPOVERLAPPED_ENTRY entries,
                                                     ULONG capacity, PULONG removed, DWORD milliseconds,
                                                     BOOL alertable) {
    Ref<Port> port = find<Port>(handle);
    if (!port)
        return truth(ERROR_INVALID_HANDLE);
    if (capacity == 0)
        return truth(ERROR_INVALID_PARAMETER);
    if (!writable_quickly(removed) || entries == nullptr ||
        !writable_quickly(entries, capacity * sizeof *entries))
        return truth(ERROR_NOACCESS);
    *removed = 0;
    Packet packets[kAtOnce];
    ULONG count;
    const DWORD result = port->take(packets, capacity < kAtOnce ? capacity : kAtOnce, count,
                                    deadline_of(milliseconds), alertable != FALSE);
    if (result != 0)
        return truth(static_cast<int>(result));
    for (ULONG i = 0; i < count; ++i)
        entries[i] = {packets[i].key, packets[i].overlapped,
                      static_cast<ULONG_PTR>(static_cast<ULONG>(packets[i].status)), packets[i].bytes};
    *removed = count;
    return TRUE;
}

LOOPFAST_API BOOL WINAPI PostQueuedCompletionStatus(HANDLE handle, DWORD bytes, ULONG_PTR key,
                                                    LPOVERLAPPED overlapped) {
    Ref<Port> port = find<Port>(handle);
    return truth(port && port->push({key, overlapped, bytes, STATUS_SUCCESS}) ? 0 : ERROR_INVALID_HANDLE);
}

LOOPFAST_API BOOL WINAPI SetFileCompletionNotificationModes(HANDLE file, UCHAR flags) {
    constexpr UCHAR kKnown = FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE;
    Ref<Socket> socket = find<Socket>(file);
    if (!socket)
        return truth(ERROR_INVALID_HANDLE);
    if ((flags & ~kKnown) != 0)
        return truth(ERROR_INVALID_PARAMETER);
    socket->modes.fetch_or(flags, std::memory_order_relaxed);
    return TRUE;
}

LOOPFAST_API BOOL WSAAPI WSAGetOverlappedResult(SOCKET s, LPWSAOVERLAPPED overlapped, LPDWORD bytes,
                                                BOOL wait, LPDWORD flags) {
    NTSTATUS status = STATUS_SUCCESS;
    return truth(overlapped_result(s, overlapped, bytes, wait != FALSE, flags, status));
}
LOOPFAST_API BOOL WINAPI GetOverlappedResult(HANDLE file, LPOVERLAPPED overlapped, LPDWORD bytes, BOOL wait) {
    DWORD flags;
    NTSTATUS status = STATUS_SUCCESS;
    // Of an operation that is over the handle does not matter: it may be closed by now.
    if (writable_quickly(overlapped) && writable_quickly(bytes)) {
        status = static_cast<NTSTATUS>(__atomic_load_n(&overlapped->Internal, __ATOMIC_ACQUIRE));
        if (status != STATUS_PENDING) {
            *bytes = static_cast<DWORD>(overlapped->InternalHigh);
            return truth(static_cast<int>(dos_of_status(status)));
        }
        status = STATUS_SUCCESS;
    }
    const int error =
        overlapped_result(reinterpret_cast<SOCKET>(file), overlapped, bytes, wait != FALSE, &flags, status);
    if (error == 0)
        return TRUE;
    if (status < 0)
        last_error = dos_of_status(status);
    else
        last_error = error == WSA_IO_INCOMPLETE ? DWORD{ERROR_IO_INCOMPLETE}
                     : error == WSAENOTSOCK     ? DWORD{ERROR_INVALID_HANDLE}
                                                : dos_of_status(status_of_wsa(error));
    return FALSE;
}

LOOPFAST_API BOOL WINAPI CancelIo(HANDLE file) {
    Ref<Socket> socket = find<Socket>(file);
    if (!socket)
        return truth(ERROR_INVALID_HANDLE);
    socket->cancel_all(this_thread().id, nullptr);
    return TRUE;
}
LOOPFAST_API BOOL WINAPI CancelIoEx(HANDLE file, LPOVERLAPPED overlapped) {
    Ref<Socket> socket = find<Socket>(file);
    if (!socket)
        return truth(ERROR_INVALID_HANDLE);
    return truth(socket->cancel_all(0, overlapped) > 0 ? 0 : ERROR_NOT_FOUND);
}
