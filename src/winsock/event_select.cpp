// See event_select.h. The reactor wakes us at every edge; what Winsock calls an event is decided here, by
// looking at the socket as it is now: an event is recorded when its condition holds and it is enabled.
#include "winsock/event_select.h"

#include "winsock/errors.h"
#include "winsock/native.h"
#include "winsock/probe.h"

namespace loopfast::winsock {

namespace {

int bit_of(LONG kind) { return __builtin_ctz(static_cast<unsigned>(kind)); }

/// Under the selection's lock. @return whether it is new.
bool record(EventSelection& selection, LONG kind, int error) {
    if ((selection.mask & kind) == 0 || (selection.disabled & kind) != 0)
        return false;
    // What is recorded stays so until it is asked for or re-enabled, whatever is selected meanwhile.
    selection.recorded |= kind;
    __atomic_or_fetch(&selection.disabled, kind, __ATOMIC_RELAXED);
    selection.errors[bit_of(kind)] = error;
    return true;
}

/// How much there is of what FD_READ and FD_ACCEPT tell: bytes, or connections.
int waiting(const Socket& socket, State state) {
    return state == State::kListening ? native::waiting_connections(socket.fd())
                                      : native::readable_bytes(socket.fd());
}

/// FD_READ and FD_ACCEPT. More of it than when it was told is told again, although nothing re-enabled it.
bool record_arrival(EventSelection& selection, LONG kind, int amount) {
    if (amount > selection.told)
        __atomic_and_fetch(&selection.disabled, ~kind, __ATOMIC_RELAXED);
    if (!record(selection, kind, 0))
        return false;
    selection.told = amount;
    return true;
}

/// What holds now of what is selected and enabled. @param now what the socket is ready for.
bool record_ready(Socket& socket, State state, short ready, bool at_end, int end_error, int amount) {
    EventSelection& selection = socket.selection;
    bool any = false;
    if (state == State::kListening)
        return (ready & native::kIn) != 0 && record_arrival(selection, FD_ACCEPT, amount);
    if (state == State::kFailed)
        return record(selection, FD_CONNECT, socket.connect_error.load(std::memory_order_relaxed));
    if (state == State::kConnecting)
        return false;
    if (socket.is_stream() && state != State::kConnected)
        return false;
    if (socket.is_stream())
        any |= record(selection, FD_CONNECT, 0);
    if ((ready & native::kOut) != 0)
        any |= record(selection, FD_WRITE, 0);
    if ((ready & native::kPriority) != 0)
        any |= record(selection, FD_OOB, 0);
    if (at_end)
        any |= record(selection, FD_CLOSE, end_error);
    else if ((ready & native::kIn) != 0)
        any |= record_arrival(selection, FD_READ, amount);
    return any;
}

}  // namespace

void note_events(Socket& socket) {
    EventSelection& selection = socket.selection;
    if (!has_selection(socket))
        return;
    const State state = socket.look();
    // The urgent byte first: the looks are what others might change.
    const short ready = socket.readiness(native::kIn | native::kOut | native::kPriority);
    bool at_end = false;
    int end_error = 0;
    if (socket.is_stream() && state == State::kConnected &&
        (ready & (native::kIn | native::kHangUp | native::kError)) != 0) {
        // The end comes after the last byte.
        char byte;
        const long result = native::receive(socket.fd(), &byte, 1, native::kPeek);
        at_end = result == 0 || (result < 0 && wsa_of_errno(result) != WSAEWOULDBLOCK);
        if (result < 0 && at_end) {
            end_error = wsa_of_errno(result);
            socket.broken.store(end_error, std::memory_order_relaxed);  // Linux tells it once
        } else if (at_end) {
            end_error = socket.broken.load(std::memory_order_relaxed);
        }
    }
    const bool arrival = socket.is_stream() && !at_end && (ready & native::kIn) != 0;
    const int amount = arrival ? waiting(socket, state) : 0;
    bool wants_room;
    {
        Hold hold(selection.lock);
        if (record_ready(socket, state, ready, at_end, end_error, amount) && selection.event != nullptr)
            selection.event->set();
        wants_room = (selection.mask & ~selection.disabled & FD_WRITE) != 0;
    }
    if (wants_room && state == State::kConnected && (ready & native::kOut) == 0)
        socket.watch_room_again();
}

void enable_event(Socket& socket, LONG kind) {
    {
        Hold hold(socket.selection.lock);
        __atomic_and_fetch(&socket.selection.disabled, ~kind, __ATOMIC_RELAXED);
        socket.selection.recorded &= ~kind;
    }
    if (!has_selection(socket))
        return;
    if (kind == FD_WRITE)
        socket.watch(true);
    note_events(socket);
}

void forget_events(Socket& socket, LONG kinds) {
    Hold hold(socket.selection.lock);
    __atomic_and_fetch(&socket.selection.disabled, ~kinds, __ATOMIC_RELAXED);
    socket.selection.recorded &= ~kinds;
}

void accepted_events(Socket& accepted) {
    Hold hold(accepted.selection.lock);
    __atomic_or_fetch(&accepted.selection.disabled, FD_CONNECT, __ATOMIC_RELAXED);
}

void note_connect(Socket& socket, int error) {
    EventSelection& selection = socket.selection;
    {
        Hold hold(selection.lock);
        if (record(selection, FD_CONNECT, error) && selection.event != nullptr)
            selection.event->set();
    }
    if (error == 0)
        note_events(socket);
}

bool wants_room(Socket& socket) {
    const LONG mask = __atomic_load_n(&socket.selection.mask, __ATOMIC_RELAXED);
    if ((mask & (FD_WRITE | FD_CONNECT)) == 0)
        return false;
    Hold hold(socket.selection.lock);
    return ((mask & FD_WRITE) != 0 && (socket.selection.disabled & FD_WRITE) == 0) ||
           ((mask & FD_CONNECT) != 0 && socket.state.load(std::memory_order_relaxed) == State::kConnecting);
}

void select_events(Socket& socket, Event* event, LONG mask) {
    EventSelection& selection = socket.selection;
    Event* before;
    Reactor* const reactor = mask != 0 ? socket.reactor() : nullptr;
    {
        Hold hold(selection.lock);
        before = std::exchange(selection.event, event);
        if (event != nullptr)
            event->keep();
        // A selection replaces the one before it. What that has told already is no news (programs select
        // anew before each wait); what it has recorded and not told is.
        __atomic_store_n(&selection.mask, mask, __ATOMIC_RELAXED);
        if (event != nullptr && (selection.recorded & mask) != 0)
            event->set();
        if (selection.reactor != nullptr)
            selection.reactor->add_pending(-1);
        selection.reactor = reactor;
        if (reactor != nullptr)
            reactor->add_pending(1);
    }
    if (before != nullptr)
        before->let_go();
    if (mask == 0)
        return;
    socket.watch((mask & (FD_WRITE | FD_CONNECT)) != 0);
    note_events(socket);
    if (reactor != nullptr)
        reactor->want_driver();
}

void inherit_selection(Socket& listener, Socket& accepted) {
    if (!has_selection(listener))
        return;
    Event* event;
    LONG mask;
    {
        Hold hold(listener.selection.lock);
        event = listener.selection.event;
        mask = listener.selection.mask;
        if (event != nullptr)
            event->keep();
    }
    select_events(accepted, event, mask);
    if (event != nullptr)
        event->let_go();
}

bool selection_moves(Socket& socket, Reactor& reactor) {
    Hold hold(socket.selection.lock);
    if (socket.selection.reactor == nullptr)
        return false;
    socket.selection.reactor->add_pending(-1);
    socket.selection.reactor = &reactor;
    reactor.add_pending(1);
    return true;
}

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API int WSAAPI WSAEventSelect(SOCKET s, WSAEVENT handle, LONG mask) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error != 0)
        return reported(error);
    Ref<Event> event;
    if (mask != 0) {
        if ((mask & ~FD_ALL_EVENTS) != 0)
            return reported(WSAEINVAL);
        event = find<Event>(handle);
        if (!event)
            return reported(WSAEINVAL);
    }
    socket->nonblocking.store(true, std::memory_order_relaxed);
    select_events(*socket, event.get(), mask);
    return reported(0);
}

LOOPFAST_API int WSAAPI WSAEnumNetworkEvents(SOCKET s, WSAEVENT handle, LPWSANETWORKEVENTS result) {
    int error;
    Ref<Socket> socket = find_socket(s, error);
    if (error == 0 && !writable(result))
        error = WSAEFAULT;
    Ref<Event> event;
    if (error == 0 && handle != nullptr) {
        event = find<Event>(handle);
        if (!event)
            error = WSAEINVAL;
    }
    if (error != 0)
        return reported(error);
    EventSelection& selection = socket->selection;
    // What happened since the reactor last looked counts too; threads that only poll never drive it.
    note_events(*socket);
    Hold hold(selection.lock);
    if (event)
        event->reset();
    // The places of events that did not happen are left as they are.
    result->lNetworkEvents = selection.recorded & selection.mask;
    for (int bit = 0; bit < FD_MAX_EVENTS; ++bit)
        if ((result->lNetworkEvents & (1 << bit)) != 0)
            result->iErrorCode[bit] = selection.errors[bit];
    selection.recorded &= ~selection.mask;
    return reported(0);
}
