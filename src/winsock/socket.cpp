// See socket.h: making and closing, readiness, the backlog.
#include "winsock/socket.h"

#include "winsock/blocking.h"
#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/extension.h"
#include "winsock/native.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

Socket::Socket(int fd, int address_family, int socket_type, int socket_protocol, bool is_overlapped)
    : Object(kKind), family(address_family), type(socket_type), protocol(socket_protocol),
      overlapped(is_overlapped), fd_(fd) {}

Socket::~Socket() {
    for (const Deferred& one : deferred)
        native::close(one.fd);
    if (fd() >= 0)
        native::close(fd());
    for (Direction* const direction : {&in, &out}) {
        while (direction->spare != nullptr) {
            Operation* const operation = direction->spare;
            direction->spare = operation->next;
            delete operation;
        }
    }
    if (Port* const port = port_.load(std::memory_order_relaxed); port != nullptr)
        port->let_go();
}

Ref<Socket> find_socket(SOCKET handle, int& error) {
    error = check_call();
    if (error != 0) [[unlikely]]
        return {};
    Ref<Socket> socket = find<Socket>(handle);
    if (!socket) [[unlikely]]
        error = WSAENOTSOCK;
    return socket;
}

bool Direction::count_at(Reactor* reactor) {
    if (counted_at == reactor) [[likely]]
        return false;
    if (counted_at != nullptr)
        counted_at->add_pending(-1);
    counted_at = reactor;
    if (reactor != nullptr)
        reactor->add_pending(1);
    return true;
}

void Socket::closed() {
    select_events(*this, nullptr, 0);
    // The handle is marked as closed, so the socket gets hot no more (Reactor::warm).
    if (Port* const mine = port(); mine != nullptr)
        mine->reactor.cool(*this);
    else if (Reactor* const common = common_reactor_if_started(); common != nullptr)
        common->cool(*this);
    for (Direction* const direction : {&in, &out}) {
        Hold hold(direction->lock);
        direction->closed = true;
    }
    cancel_all(0, nullptr);
    if (state.load(std::memory_order_acquire) == State::kAccepting)
        cancel_accepts_into(*this);
    {
        Hold hold(blocked_lock);
        closing = true;
        for (const BlockedCall* call = blocked; call != nullptr; call = call->next())
            call->wake();
    }
    {
        Hold hold(in.lock);
        in.count_at(nullptr);
    }
    Hold hold(out.lock);
    out.count_at(nullptr);
    if (has_backlog()) {
        keep();  // until the last byte is sent, see drain_backlog
        return;
    }
    unwatch();
}

State Socket::look() {
    State now = state.load(std::memory_order_acquire);
    if (now != State::kConnecting)
        return now;
    Hold hold(connecting);
    now = state.load(std::memory_order_acquire);
    if (now != State::kConnecting)
        return now;
    const short ready = native::ready_now(fd(), native::kOut);
    if ((ready & (native::kOut | native::kError | native::kHangUp)) == 0)
        return now;
    int error = 0;
    native::get(fd(), native::Option::kPendingError, error);
    if (error != 0 || (ready & native::kError) != 0) {
        connect_error.store(error != 0 ? wsa_of_errno(-error) : WSAECONNREFUSED, std::memory_order_relaxed);
        state.compare_exchange_strong(now, State::kFailed, std::memory_order_acq_rel);
    } else {
        connected();
    }
    return state.load(std::memory_order_acquire);
}

void Socket::connected() {
    connect_time.store(now(), std::memory_order_relaxed);
    state.store(State::kConnected, std::memory_order_release);
}

Reactor* Socket::reactor() {
    Port* const mine = port();
    return mine != nullptr ? &mine->reactor : common_reactor();
}

void Socket::watch(bool room) {
    Reactor* const mine = reactor();
    if (mine == nullptr)
        return;
    const uint32_t wanted = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET | (room ? uint32_t{EPOLLOUT} : 0);
    // Without the lock: interest in bytes is taken away with the descriptor only, that in room under the lock
    // of the sending direction, which whoever wants room holds.
    if (watched_by_.load(std::memory_order_acquire) == mine &&
        (watched_.load(std::memory_order_relaxed) & wanted) == wanted) [[likely]]
        return;
    Hold hold(watch_lock_);
    Reactor* const before = watched_by_.load(std::memory_order_relaxed);
    if (before == mine) {
        const uint32_t all = watched_.load(std::memory_order_relaxed) | wanted;
        native::epoll_control(mine->descriptor(), EPOLL_CTL_MOD, fd(), all, handle());
        watched_.store(all, std::memory_order_relaxed);
        return;
    }
    if (before != nullptr)
        native::epoll_control(before->descriptor(), EPOLL_CTL_DEL, fd(), 0, 0);
    watched_by_.store(nullptr, std::memory_order_relaxed);
    if (native::epoll_control(mine->descriptor(), EPOLL_CTL_ADD, fd(), wanted, handle()) < 0)
        return;
    watched_.store(wanted, std::memory_order_relaxed);
    watched_by_.store(mine, std::memory_order_release);
}

void Socket::unwatch() {
    Hold hold(watch_lock_);
    Reactor* const before = watched_by_.load(std::memory_order_relaxed);
    if (before != nullptr)
        native::epoll_control(before->descriptor(), EPOLL_CTL_DEL, fd(), 0, 0);
    watched_by_.store(nullptr, std::memory_order_release);
    watched_.store(0, std::memory_order_relaxed);
}

void Socket::watch_room_again() {
    Hold hold(watch_lock_);
    Reactor* const by = watched_by_.load(std::memory_order_relaxed);
    const uint32_t watched = watched_.load(std::memory_order_relaxed);
    if (by != nullptr && (watched & EPOLLOUT) != 0)
        native::epoll_control(by->descriptor(), EPOLL_CTL_MOD, fd(), watched, handle());
}

void Socket::replace(int fd) {
    unwatch();
    const int before = fd_.exchange(fd, std::memory_order_relaxed);
    if (before >= 0)
        native::close(before);
}

void Socket::progress(UINT_PTR handle, uint32_t events) {
    Object* const object = find_living(handle);
    if (object == nullptr)
        return;
    Ref<Object> user(object);
    if (object->kind() != Kind::kSocket)
        return;
    auto& socket = static_cast<Socket&>(*object);
    if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        bool pending;
        {
            Hold hold(socket.in.lock);
            pending = !socket.in.empty();
            if (!pending)
                socket.in.count_at(nullptr);
            else if (!socket.nothing_to_receive())
                socket.run_in();
        }
        if (pending && socket.hot_at.load(std::memory_order_relaxed) == nullptr)
            socket.warm();
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0)
        socket.progress_out((events & EPOLLOUT) != 0, handle);
    note_events(socket);
}

void Socket::progress_out(bool room, UINT_PTR handle) {
    Hold hold(out.lock);
    if (out.empty())
        out.count_at(nullptr);
    run_out();
    if (!room || !out.empty() || has_backlog())
        return;
    // Nobody waits for room any more: the peer need not ring for it.
    Hold watching(watch_lock_);
    Reactor* const by = watched_by_.load(std::memory_order_relaxed);
    if (by != nullptr && !wants_room(*this)) {
        const uint32_t rest = watched_.load(std::memory_order_relaxed) & ~uint32_t{EPOLLOUT};
        watched_.store(rest, std::memory_order_relaxed);
        native::epoll_control(by->descriptor(), EPOLL_CTL_MOD, fd(), rest, handle);
    }
}

Socket::Quick Socket::progress_quickly() {
    const bool room = (watched_.load(std::memory_order_relaxed) & EPOLLOUT) != 0;
    const int ready = native::look(fd(), room ? native::kIn | native::kOut : native::kIn);
    if (ready < 0 || has_selection(*this)) [[unlikely]]
        return Quick::kNotPlain;
    if (ready == 0)
        return Quick::kNothing;
    bool any = false;
    if ((ready & native::kIn) != 0) {
        Hold hold(in.lock);
        any = !in.empty();
        if (!run_plain_receive())
            run_in();
    }
    if ((ready & native::kOut) != 0) {
        any = true;
        progress_out(true, handle());
    }
    return any ? Quick::kDone : Quick::kNothing;
}

bool Socket::nothing_to_receive() const { return is_stream() && native::look(fd(), native::kIn) == 0; }

void Socket::warm() {
    if (has_selection(*this) || !is_stream() || native::look(fd(), native::kIn) < 0)
        return;
    if (Reactor* const mine = reactor(); mine != nullptr)
        mine->warm(*this);
}

short Socket::readiness(short events) {
    short ready = native::ready_now(fd(), events);
    if ((events & native::kIn) != 0 && state.load(std::memory_order_relaxed) == State::kListening) {
        Hold hold(in.lock);
        if (!deferred.empty())
            ready |= native::kIn;
    }
    if ((ready & native::kOut) != 0 && is_stream()) {
        Hold hold(out.lock);
        if (has_backlog())
            ready &= static_cast<short>(~native::kOut);
    }
    return ready;
}

DWORD Socket::associate(Port* port, ULONG_PTR key) {
    Reactor* const before = common_reactor_if_started();
    {
        Hold inward(in.lock);
        Hold outward(out.lock);
        if (port_.load(std::memory_order_relaxed) != nullptr)
            return ERROR_INVALID_PARAMETER;
        port->keep();
        key_ = key;
        port_.store(port, std::memory_order_release);
        const bool room = has_backlog() || !out.empty();
        const bool any = room || !in.empty();
        for (Direction* const direction : {&in, &out})
            if (direction->counted_at != nullptr)
                direction->count_at(direction->empty() ? nullptr : &port->reactor);
        if (backlog_pending_ && before != nullptr) {
            before->add_pending(-1);
            port->reactor.add_pending(1);
        }
        if (selection_moves(*this, port->reactor) || any)
            watch(room);
    }
    if (before != nullptr)
        before->cool(*this);
    return 0;
}

}  // namespace loopfast::winsock
