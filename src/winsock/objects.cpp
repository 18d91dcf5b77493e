// The public functions of events, waits and handles.
#include "winsock/probe.h"
#include "winsock/socket.h"
#include "winsock/startup.h"
#include "winsock/waitable.h"

namespace loopfast::winsock {

namespace {

HANDLE make_event(bool manual, bool set) {
    const UINT_PTR handle = open_handle(new Event(manual, set));
    if (handle == 0)
        last_error = ERROR_NOT_ENOUGH_MEMORY;
    return reinterpret_cast<HANDLE>(handle);
}

BOOL with_event(HANDLE handle, bool set) {
    Ref<Event> event = find<Event>(handle);
    if (!event)
        return truth(ERROR_INVALID_HANDLE);
    if (set)
        event->set();
    else
        event->reset();
    return TRUE;
}

/// An event, or a thread, by the handles that mean one.
Ref<Waitable> find_waitable(HANDLE handle) {
    // Windows ignores the two lowest bits of a handle; programs mark events in OVERLAPPEDs with one.
    if (handle != GetCurrentThread())
        handle = reinterpret_cast<HANDLE>(reinterpret_cast<UINT_PTR>(handle) & ~UINT_PTR{3});
    if (Ref<Event> event = find<Event>(handle))
        return Ref<Waitable>(event.release());
    return Ref<Waitable>(find_thread(handle).release());
}

DWORD wait_for_handles(DWORD count, const HANDLE* handles, bool all, DWORD milliseconds, bool alertable) {
    if (count == 0 || count > MAXIMUM_WAIT_OBJECTS) {
        last_error = ERROR_INVALID_PARAMETER;
        return WAIT_FAILED;
    }
    if (!readable_quickly(handles, count * sizeof *handles)) {
        last_error = ERROR_NOACCESS;
        return WAIT_FAILED;
    }
    Ref<Waitable> kept[MAXIMUM_WAIT_OBJECTS];
    Waitable* objects[MAXIMUM_WAIT_OBJECTS];
    for (DWORD i = 0; i < count; ++i) {
        kept[i] = find_waitable(handles[i]);
        objects[i] = kept[i].get();
        if (!kept[i]) {
            last_error = ERROR_INVALID_HANDLE;
            return WAIT_FAILED;
        }
    }
    return wait_for_objects(objects, count, all, deadline_of(milliseconds), alertable);
}

}  // namespace

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API HANDLE WINAPI CreateEventA(LPSECURITY_ATTRIBUTES, BOOL manual, BOOL set, LPCSTR name) {
    if (name != nullptr) {
        last_error = ERROR_NOT_SUPPORTED;
        return nullptr;
    }
    return make_event(manual != FALSE, set != FALSE);
}
LOOPFAST_API HANDLE WINAPI CreateEventW(LPSECURITY_ATTRIBUTES attributes, BOOL manual, BOOL set,
                                        LPCWSTR name) {
    return CreateEventA(attributes, manual, set, name != nullptr ? "" : nullptr);
}
LOOPFAST_API HANDLE WINAPI CreateSemaphoreA(LPSECURITY_ATTRIBUTES, LONG count, LONG most, LPCSTR name) {
    if (name != nullptr || count < 0 || most <= 0 || count > most) {
        last_error = name != nullptr ? ERROR_NOT_SUPPORTED : ERROR_INVALID_PARAMETER;
        return nullptr;
    }
    const UINT_PTR handle = open_handle(new Semaphore(count, most));
    if (handle == 0)
        last_error = ERROR_NOT_ENOUGH_MEMORY;
    return reinterpret_cast<HANDLE>(handle);
}
LOOPFAST_API HANDLE WINAPI CreateSemaphoreW(LPSECURITY_ATTRIBUTES attributes, LONG count, LONG most,
                                            LPCWSTR name) {
    return CreateSemaphoreA(attributes, count, most, name != nullptr ? "" : nullptr);
}
LOOPFAST_API BOOL WINAPI ReleaseSemaphore(HANDLE handle, LONG count, LPLONG previous) {
    Ref<Event> event = find<Event>(handle);
    if (!event || !event->is_semaphore())
        return truth(ERROR_INVALID_HANDLE);
    if (!writable_or_null(previous))
        return truth(ERROR_NOACCESS);
    LONG before = 0;
    if (!static_cast<Semaphore&>(*event).release(count, before))
        return truth(ERROR_TOO_MANY_POSTS);
    if (previous != nullptr)
        *previous = before;
    return TRUE;
}
LOOPFAST_API BOOL WINAPI SetEvent(HANDLE event) { return with_event(event, true); }
LOOPFAST_API BOOL WINAPI ResetEvent(HANDLE event) { return with_event(event, false); }

LOOPFAST_API WSAEVENT WSAAPI WSACreateEvent(void) { return make_event(true, false); }
LOOPFAST_API BOOL WSAAPI WSACloseEvent(WSAEVENT event) {
    return truth(close_handle(reinterpret_cast<UINT_PTR>(event), Kind::kEvent) ? 0 : ERROR_INVALID_HANDLE);
}
LOOPFAST_API BOOL WSAAPI WSASetEvent(WSAEVENT event) { return with_event(event, true); }
LOOPFAST_API BOOL WSAAPI WSAResetEvent(WSAEVENT event) { return with_event(event, false); }

LOOPFAST_API DWORD WSAAPI WSAWaitForMultipleEvents(DWORD count, const WSAEVENT* events, BOOL all,
                                                   DWORD timeout, BOOL alertable) {
    return wait_for_handles(count, events, all != FALSE, timeout, alertable != FALSE);
}
LOOPFAST_API DWORD WINAPI WaitForSingleObject(HANDLE handle, DWORD timeout) {
    return wait_for_handles(1, &handle, false, timeout, false);
}
LOOPFAST_API DWORD WINAPI WaitForSingleObjectEx(HANDLE handle, DWORD timeout, BOOL alertable) {
    return wait_for_handles(1, &handle, false, timeout, alertable != FALSE);
}
LOOPFAST_API DWORD WINAPI WaitForMultipleObjects(DWORD count, const HANDLE* handles, BOOL all,
                                                 DWORD timeout) {
    return wait_for_handles(count, handles, all != FALSE, timeout, false);
}
LOOPFAST_API DWORD WINAPI WaitForMultipleObjectsEx(DWORD count, const HANDLE* handles, BOOL all,
                                                   DWORD timeout, BOOL alertable) {
    return wait_for_handles(count, handles, all != FALSE, timeout, alertable != FALSE);
}
LOOPFAST_API void WINAPI Sleep(DWORD milliseconds) {
    wait_for_objects(nullptr, 0, false, deadline_of(milliseconds), false);
}
LOOPFAST_API DWORD WINAPI SleepEx(DWORD milliseconds, BOOL alertable) {
    const DWORD result = wait_for_objects(nullptr, 0, false, deadline_of(milliseconds), alertable != FALSE);
    return result == WAIT_IO_COMPLETION ? result : 0;
}

LOOPFAST_API BOOL WINAPI CloseHandle(HANDLE handle) {
    const auto number = reinterpret_cast<UINT_PTR>(handle);
    for (const Kind kind : {Kind::kEvent, Kind::kPort, Kind::kSocket})
        if (close_handle(number, kind))
            return TRUE;
    Ref<Thread> thread = find<Thread>(handle);
    if (!thread)
        return truth(ERROR_INVALID_HANDLE);
    // A thread that still runs is named by this number as long as it does.
    if (thread->give_up_handle())
        close_handle(number, Kind::kThread);
    return TRUE;
}
