// The service provider interface: a table of the same functions. Each WSP function calls the public one and
// moves the error from the thread's last error to *lpErrno; what is different is where completion routines go
// (to the thread that the caller names, through the upcalls that it gave) and whose blocking callback is
// asked.
#include "winsock/provider.h"

#include <cstdio>
#include <type_traits>

#include "winsock/blocking.h"
#include "winsock/errors.h"
#include "winsock/names.h"
#include "winsock/operation.h"
#include "winsock/probe.h"
#include "winsock/socket.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

namespace {

Lock providers_lock;
Provider* latest = nullptr;

/// A call through the table: keeps the thread's last error as it was and gives the call's to the caller.
template <typename Result, typename Call> Result provided(LPINT error, LPWSATHREADID thread, Call call) {
    const DWORD before = std::exchange(last_error, 0);
    const ProviderCall outer = provider_call;
    provider_call = {};
    {
        Hold hold(providers_lock);
        provider_call.provider = latest;
    }
    Result result{};
    bool good = true;
    if (thread != nullptr) {
        good = readable(thread);
        if (good) {
            provider_call.thread = *thread;
            provider_call.has_thread = true;
        }
    }
    if (good) {
        result = call();
    } else {
        if constexpr (std::is_same_v<Result, int>)
            result = SOCKET_ERROR;
        last_error = WSAEFAULT;
    }
    provider_call = outer;
    if (writable(error))
        *error = static_cast<int>(last_error);
    last_error = before;
    return result;
}

SOCKET WSPAPI wsp_accept(SOCKET s, sockaddr* name, LPINT size, LPCONDITIONPROC condition, DWORD_PTR data,
                         LPINT error) {
    return provided<SOCKET>(error, nullptr, [&] { return WSAAccept(s, name, size, condition, data); });
}
int WSPAPI wsp_bind(SOCKET s, const sockaddr* name, int size, LPINT error) {
    return provided<int>(error, nullptr, [&] { return bind(s, name, size); });
}
int WSPAPI wsp_cancel_blocking_call(LPINT error) {
    return provided<int>(error, nullptr, [] { return WSACancelBlockingCall(); });
}
int WSPAPI wsp_cleanup(LPINT error) {
    return provided<int>(error, nullptr, [] { return reported(end_use()); });
}
int WSPAPI wsp_close_socket(SOCKET s, LPINT error) {
    return provided<int>(error, nullptr, [&] { return closesocket(s); });
}
int WSPAPI wsp_connect(SOCKET s, const sockaddr* name, int size, LPWSABUF caller, LPWSABUF callee,
                       LPQOS sending, LPQOS group, LPINT error) {
    return provided<int>(error, nullptr,
                         [&] { return WSAConnect(s, name, size, caller, callee, sending, group); });
}
int WSPAPI wsp_enum_network_events(SOCKET s, WSAEVENT event, LPWSANETWORKEVENTS events, LPINT error) {
    return provided<int>(error, nullptr, [&] { return WSAEnumNetworkEvents(s, event, events); });
}
int WSPAPI wsp_event_select(SOCKET s, WSAEVENT event, LONG mask, LPINT error) {
    return provided<int>(error, nullptr, [&] { return WSAEventSelect(s, event, mask); });
}
BOOL WSPAPI wsp_get_overlapped_result(SOCKET s, LPWSAOVERLAPPED overlapped, LPDWORD bytes, BOOL wait,
                                      LPDWORD flags, LPINT error) {
    return provided<BOOL>(error, nullptr,
                          [&] { return WSAGetOverlappedResult(s, overlapped, bytes, wait, flags); });
}
int WSPAPI wsp_get_peer_name(SOCKET s, sockaddr* name, LPINT size, LPINT error) {
    return provided<int>(error, nullptr, [&] { return getpeername(s, name, size); });
}
int WSPAPI wsp_get_sock_name(SOCKET s, sockaddr* name, LPINT size, LPINT error) {
    return provided<int>(error, nullptr, [&] { return getsockname(s, name, size); });
}
int WSPAPI wsp_get_sock_opt(SOCKET s, int level, int name, char* value, LPINT size, LPINT error) {
    return provided<int>(error, nullptr, [&] { return getsockopt(s, level, name, value, size); });
}
int WSPAPI wsp_ioctl(SOCKET s, DWORD code, LPVOID in, DWORD in_size, LPVOID out, DWORD out_size,
                     LPDWORD returned, LPWSAOVERLAPPED overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
                     LPWSATHREADID thread, LPINT error) {
    return provided<int>(error, thread, [&] {
        return WSAIoctl(s, code, in, in_size, out, out_size, returned, overlapped, routine);
    });
}
int WSPAPI wsp_listen(SOCKET s, int backlog, LPINT error) {
    return provided<int>(error, nullptr, [&] { return listen(s, backlog); });
}
int WSPAPI wsp_recv(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD received, LPDWORD flags,
                    LPWSAOVERLAPPED overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
                    LPWSATHREADID thread, LPINT error) {
    return provided<int>(error, thread,
                         [&] { return WSARecv(s, buffers, count, received, flags, overlapped, routine); });
}
int WSPAPI wsp_recv_from(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD received, LPDWORD flags,
                         sockaddr* from, LPINT from_size, LPWSAOVERLAPPED overlapped,
                         LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread, LPINT error) {
    return provided<int>(error, thread, [&] {
        return WSARecvFrom(s, buffers, count, received, flags, from, from_size, overlapped, routine);
    });
}
int WSPAPI wsp_recv_disconnect(SOCKET s, LPWSABUF data, LPINT error) {
    return provided<int>(error, nullptr, [&] { return WSARecvDisconnect(s, data); });
}
int WSPAPI wsp_select(int count, fd_set* reading, fd_set* writing, fd_set* except, PTIMEVAL timeout,
                      LPINT error) {
    return provided<int>(error, nullptr, [&] { return select(count, reading, writing, except, timeout); });
}
int WSPAPI wsp_send(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD sent, DWORD flags,
                    LPWSAOVERLAPPED overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
                    LPWSATHREADID thread, LPINT error) {
    return provided<int>(error, thread,
                         [&] { return WSASend(s, buffers, count, sent, flags, overlapped, routine); });
}
int WSPAPI wsp_send_disconnect(SOCKET s, LPWSABUF data, LPINT error) {
    return provided<int>(error, nullptr, [&] { return WSASendDisconnect(s, data); });
}
int WSPAPI wsp_send_to(SOCKET s, LPWSABUF buffers, DWORD count, LPDWORD sent, DWORD flags, const sockaddr* to,
                       int to_size, LPWSAOVERLAPPED overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
                       LPWSATHREADID thread, LPINT error) {
    return provided<int>(error, thread, [&] {
        return WSASendTo(s, buffers, count, sent, flags, to, to_size, overlapped, routine);
    });
}
int WSPAPI wsp_set_sock_opt(SOCKET s, int level, int name, const char* value, int size, LPINT error) {
    return provided<int>(error, nullptr, [&] { return setsockopt(s, level, name, value, size); });
}
int WSPAPI wsp_shutdown(SOCKET s, int how, LPINT error) {
    return provided<int>(error, nullptr, [&] { return shutdown(s, how); });
}
SOCKET WSPAPI wsp_socket(int family, int type, int protocol, LPWSAPROTOCOL_INFOW info, GROUP group,
                         DWORD flags, LPINT error) {
    return provided<SOCKET>(error, nullptr,
                            [&] { return WSASocketW(family, type, protocol, info, group, flags); });
}

// What TCP and UDP on Linux have nothing behind.
int no(LPINT error) {
    return provided<int>(error, nullptr, [] { return reported(WSAEOPNOTSUPP); });
}
int WSPAPI wsp_async_select(SOCKET, HWND, unsigned, LONG, LPINT error) { return no(error); }
int WSPAPI wsp_duplicate_socket(SOCKET, DWORD, LPWSAPROTOCOL_INFOW, LPINT error) { return no(error); }
BOOL WSPAPI wsp_get_qos_by_name(SOCKET, LPWSABUF, LPQOS, LPINT error) {
    no(error);
    return FALSE;
}
SOCKET WSPAPI wsp_join_leaf(SOCKET, const sockaddr*, int, LPWSABUF, LPWSABUF, LPQOS, LPQOS, DWORD,
                            LPINT error) {
    no(error);
    return INVALID_SOCKET;
}

INT WSPAPI wsp_address_to_string(LPSOCKADDR name, DWORD size, LPWSAPROTOCOL_INFOW, LPWSTR text, LPDWORD room,
                                 LPINT error) {
    return provided<int>(error, nullptr,
                         [&] { return WSAAddressToStringW(name, size, nullptr, text, room); });
}
INT WSPAPI wsp_string_to_address(LPWSTR text, INT family, LPWSAPROTOCOL_INFOW, LPSOCKADDR name, LPINT size,
                                 LPINT error) {
    return provided<int>(error, nullptr,
                         [&] { return WSAStringToAddressW(text, family, nullptr, name, size); });
}

constexpr WSPPROC_TABLE kTable = {
    wsp_accept,
    wsp_address_to_string,
    wsp_async_select,
    wsp_bind,
    wsp_cancel_blocking_call,
    wsp_cleanup,
    wsp_close_socket,
    wsp_connect,
    wsp_duplicate_socket,
    wsp_enum_network_events,
    wsp_event_select,
    wsp_get_overlapped_result,
    wsp_get_peer_name,
    wsp_get_sock_name,
    wsp_get_sock_opt,
    wsp_get_qos_by_name,
    wsp_ioctl,
    wsp_join_leaf,
    wsp_listen,
    wsp_recv,
    wsp_recv_disconnect,
    wsp_recv_from,
    wsp_select,
    wsp_send,
    wsp_send_disconnect,
    wsp_send_to,
    wsp_set_sock_opt,
    wsp_shutdown,
    wsp_socket,
    wsp_string_to_address,
};

/// Entries that the program left empty are ours.
void fill(WSPUPCALLTABLE& upcalls) {
    if (upcalls.lpWPUQueueApc == nullptr)
        upcalls.lpWPUQueueApc = WPUQueueApc;
    if (upcalls.lpWPUOpenCurrentThread == nullptr)
        upcalls.lpWPUOpenCurrentThread = WPUOpenCurrentThread;
    if (upcalls.lpWPUCloseThread == nullptr)
        upcalls.lpWPUCloseThread = WPUCloseThread;
    if (upcalls.lpWPUQueryBlockingCallback == nullptr)
        upcalls.lpWPUQueryBlockingCallback = WPUQueryBlockingCallback;
}

int given(LPINT error, int value) {
    if (value != 0 && writable(error))
        *error = value;
    return value == 0 ? 0 : SOCKET_ERROR;
}

BOOL CALLBACK hook_as_callback(DWORD_PTR context) {
    reinterpret_cast<BOOL (*)()>(context)();
    return TRUE;
}

}  // namespace

bool call_blocking_callback(Thread& thread) {
    const Provider* const provider = provider_call.provider;
    if (provider == nullptr || provider->upcalls.lpWPUQueryBlockingCallback == WPUQueryBlockingCallback)
        return false;
    LPBLOCKINGCALLBACK callback = nullptr;
    DWORD_PTR context = 0;
    int error = 0;
    if (provider->upcalls.lpWPUQueryBlockingCallback(0, &callback, &context, &error) != 0 ||
        callback == nullptr)
        return false;
    InCallback inside;
    if (callback(context) == FALSE)
        thread.cancelled.store(1, std::memory_order_seq_cst);
    return true;
}

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSPAPI WSPStartup(WORD version, LPWSPDATA data, LPWSAPROTOCOL_INFOW, WSPUPCALLTABLE upcalls,
                                   LPWSPPROC_TABLE table) {
    if (LOBYTE(version) < 2)
        return WSAVERNOTSUPPORTED;
    if (!writable(data) || !writable(table))
        return WSAEFAULT;
    fill(upcalls);
    {
        Hold hold(providers_lock);
        // Starting it again and again with the same upcalls keeps one.
        if (latest == nullptr || memcmp(&latest->upcalls, &upcalls, sizeof upcalls) != 0)
            latest = new Provider{upcalls, latest};
    }
    memset(data, 0, sizeof *data);
    data->wVersion = data->wHighVersion = MAKEWORD(2, 2);
    const char* const text = "loopfast Winsock provider 2.2";
    for (size_t i = 0; text[i] != '\0'; ++i)
        data->szDescription[i] = static_cast<WCHAR>(text[i]);
    *table = kTable;
    uses.fetch_add(1, std::memory_order_acq_rel);
    return 0;
}

LOOPFAST_API int WSPAPI WPUOpenCurrentThread(LPWSATHREADID thread, LPINT error) {
    if (!writable(thread))
        return given(error, WSAEFAULT);
    thread->ThreadHandle = reinterpret_cast<HANDLE>(this_thread().handle());
    thread->Reserved = 0;
    return 0;
}
LOOPFAST_API int WSPAPI WPUCloseThread(LPWSATHREADID thread, LPINT error) {
    // The thread's own handle was lent; the thread closes it at its end.
    if (!readable(thread))
        return given(error, WSAEFAULT);
    return given(error, find_thread(thread->ThreadHandle) ? 0 : WSAEINVAL);
}
LOOPFAST_API int WSPAPI WPUQueueApc(LPWSATHREADID thread, LPWSAUSERAPC function, DWORD_PTR context,
                                    LPINT error) {
    if (!readable(thread))
        return given(error, WSAEFAULT);
    Ref<Thread> target = find_thread(thread->ThreadHandle);
    if (!target)
        return given(error, WSAEINVAL);
    auto* const routine = new Routine{nullptr, function, context, true};
    if (target->queue(routine))
        return 0;
    delete routine;
    return given(error, WSAEINVAL);
}
LOOPFAST_API int WSPAPI WPUCompleteOverlappedRequest(SOCKET s, LPWSAOVERLAPPED overlapped, DWORD result,
                                                     DWORD bytes, LPINT error) {
    Ref<Socket> socket = find<Socket>(s);
    if (!socket)
        return given(error, WSAENOTSOCK);
    if (overlapped == nullptr)
        return given(error, WSAEINVAL);
    if (!writable(overlapped))
        return given(error, WSAEFAULT);
    Target target;
    const int bad = make_target(*socket, overlapped, nullptr, target);
    if (bad != 0)
        return given(error, bad);
    complete(target, nullptr, static_cast<int>(result), bytes, 0, false);
    return 0;
}

LOOPFAST_API WSAEVENT WSPAPI WPUCreateEvent(LPINT error) {
    return provided<WSAEVENT>(error, nullptr, [] { return WSACreateEvent(); });
}
LOOPFAST_API BOOL WSPAPI WPUCloseEvent(WSAEVENT event, LPINT error) {
    return provided<BOOL>(error, nullptr, [&] { return WSACloseEvent(event); });
}
LOOPFAST_API BOOL WSPAPI WPUSetEvent(WSAEVENT event, LPINT error) {
    return provided<BOOL>(error, nullptr, [&] { return WSASetEvent(event); });
}
LOOPFAST_API BOOL WSPAPI WPUResetEvent(WSAEVENT event, LPINT error) {
    return provided<BOOL>(error, nullptr, [&] { return WSAResetEvent(event); });
}
LOOPFAST_API int WSPAPI WPUFDIsSet(SOCKET s, fd_set* set) { return __WSAFDIsSet(s, set); }
LOOPFAST_API int WSPAPI WPUQueryBlockingCallback(DWORD, LPBLOCKINGCALLBACK* callback, PDWORD_PTR context,
                                                 LPINT error) {
    if (!writable(callback) || !writable(context))
        return given(error, WSAEFAULT);
    const FARPROC hook = this_thread().hook;
    *callback = hook != nullptr ? hook_as_callback : nullptr;
    *context = reinterpret_cast<DWORD_PTR>(hook);
    return 0;
}
