// The queues of a socket: operations that wait, tried in their order.
#include <cerrno>

#include "winsock/errors.h"
#include "winsock/event_select.h"
#include "winsock/extension.h"
#include "winsock/native.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

Operation* Socket::new_operation(Direction& direction, Target& target, Work work) {
    Operation* operation;
    if (target.routine != nullptr) {
        operation = spare_operation();
    } else if (direction.spare != nullptr) {
        operation = direction.spare;
        direction.spare = operation->next;
    } else {
        operation = new Operation;
    }
    operation->target = target;
    operation->work = work;
    operation->issuer = this_thread().id;
    operation->done = 0;
    operation->total = 0;
    operation->flags = 0;
    operation->wait_all = false;
    operation->from = nullptr;
    operation->from_size = nullptr;
    operation->to.size = 0;
    operation->accepted = nullptr;
    operation->listener = 0;
    return operation;
}

void Socket::enqueue(Direction& direction, Operation* operation) {
    if (direction.closed) [[unlikely]] {
        // By another thread, between this call's look-up and now.
        finish(direction, operation, WSA_OPERATION_ABORTED, operation->done, 0);
        return;
    }
    operation->next = nullptr;
    *direction.tail = operation;
    direction.tail = &operation->next;
    Reactor* const mine = reactor();
    if (mine == nullptr)
        return;
    const bool news = direction.count_at(mine);
    watch(&direction == &out);
    // Who left the reactor since it heard of this direction has seen to a driver.
    if (news)
        mine->want_driver();
}

void Socket::finish(Direction& direction, Operation* operation, int error, size_t bytes, DWORD flags) {
    if (operation->accepted != nullptr) {
        if (error != 0)
            operation->accepted->state.store(State::kFresh, std::memory_order_release);  // as before the call
        std::exchange(operation->accepted, nullptr)->let_go();
    }
    const bool routine = operation->target.routine != nullptr;
    complete(operation->target, operation, error, bytes, flags, false);
    if (routine)
        return;  // the thread's, from now on
    operation->next = direction.spare;
    direction.spare = operation;
}

int Socket::perform_receive(Operation& operation, size_t& bytes, DWORD& flags) {
    Address from;
    int native_flags = operation.flags;
    size_t moved;
    const int error = try_receive(operation.parts, operation.count, operation.total - operation.done,
                                  native_flags, operation.from != nullptr ? &from : nullptr, moved);
    flags = 0;
    if (error == WSAEWOULDBLOCK)
        return error;
    bytes = operation.done + moved;
    if (error == 0 && operation.wait_all && moved > 0 && bytes < operation.total) {
        operation.advance(moved);
        return perform_receive(operation, bytes, flags);
    }
    if ((error == 0 || error == WSAEMSGSIZE) && operation.from != nullptr)
        to_windows(from, operation.from, operation.from_size);
    if (error == WSAEMSGSIZE)
        flags = MSG_PARTIAL;
    if (error != 0 && error != WSAEMSGSIZE && operation.done > 0)
        return 0;  // what came before the error; the next receive tells it
    return error;
}

int Socket::perform_send(Operation& operation, size_t& bytes) {
    for (;;) {
        size_t moved;
        const int error = try_send(operation.parts, operation.count, operation.flags, &operation.to, moved);
        if (error != 0) {
            bytes = operation.done;
            return error;
        }
        if (operation.done + moved >= operation.total) {
            bytes = operation.total;
            return 0;
        }
        operation.advance(moved);
    }
}

int Socket::perform_connect(Operation& operation) {
    switch (look()) {
    case State::kConnecting:
        return WSAEWOULDBLOCK;
    case State::kFailed:
        return connect_error.load(std::memory_order_relaxed);
    default:
        break;
    }
    if (operation.total == 0)
        return 0;
    operation.work = Work::kSend;  // the bytes that came with it
    size_t bytes;
    return perform_send(operation, bytes);
}

bool Socket::run_plain_receive() {
    Operation* const operation = in.head;
    if (operation == nullptr || operation->next != nullptr || operation->work != Work::kReceive ||
        operation->count != 1 || operation->flags != 0 || operation->wait_all || operation->done != 0 ||
        operation->parts->iov_len == 0)
        return false;
    const long result = native::receive(fd(), operation->parts->iov_base, operation->parts->iov_len, 0);
    if (result == 0 || result == -EAGAIN || result == -EINTR)
        return false;
    in.head = nullptr;
    in.tail = &in.head;
    // An error is not asked for again: Linux tells it once.
    if (result > 0)
        finish(in, operation, 0, static_cast<size_t>(result), 0);
    else
        finish(in, operation, error_of(result, false), 0, 0);
    return true;
}

void Socket::run_in() {
    while (Operation* const operation = in.head) {
        size_t bytes = 0;
        DWORD flags = 0;
        int error;
        if (operation->work == Work::kAccept) {
            bool moved_on = false;
            // Out of the queue first: it may go on in the queue of the socket that it accepted into.
            error = accept_pending(*this, *operation, moved_on);
            if (error == WSAEWOULDBLOCK)
                return;
            in.head = operation->next;
            if (in.head == nullptr)
                in.tail = &in.head;
            if (moved_on)
                continue_accept(*this, operation);
            else
                finish(in, operation, error, 0, 0);
            continue;
        }
        error = perform_receive(*operation, bytes, flags);
        if (error == WSAEWOULDBLOCK)
            return;
        if (operation->work == Work::kAcceptData)
            write_accept_addresses(*this, *operation);
        in.head = operation->next;
        if (in.head == nullptr)
            in.tail = &in.head;
        finish(in, operation, error, bytes, flags);
    }
}

void Socket::run_out() {
    if (has_backlog()) {
        const int error = drain_backlog();
        if (error == 0 && has_backlog())
            return;
    }
    while (Operation* const operation = out.head) {
        size_t bytes = 0;
        int error;
        if (operation->work == Work::kConnect) {
            error = perform_connect(*operation);
            if (error == 0)
                bytes = operation->total;
        } else if (operation->work == Work::kDisconnect) {
            error = disconnect_now(*this, (operation->flags & TF_REUSE_SOCKET) != 0);
        } else {
            error = perform_send(*operation, bytes);
        }
        if (error == WSAEWOULDBLOCK)
            return;
        out.head = operation->next;
        if (out.head == nullptr)
            out.tail = &out.head;
        finish(out, operation, error, bytes, 0);
    }
    if (shut_when_sent_)
        shut_send_in_order();
}

template <typename Which> int Socket::cancel(Direction& direction, Which which) {
    int count = 0;
    Hold hold(direction.lock);
    for (Operation** place = &direction.head; *place != nullptr;) {
        Operation* const operation = *place;
        if (!which(*operation)) {
            place = &operation->next;
            continue;
        }
        *place = operation->next;
        if (operation->next == nullptr)
            direction.tail = place;
        ++count;
        finish(direction, operation, WSA_OPERATION_ABORTED, operation->done, 0);
    }
    return count;
}

int Socket::cancel_all(uint64_t issuer, const OVERLAPPED* wanted) {
    const auto which = [&](const Operation& operation) {
        return (issuer == 0 || operation.issuer == issuer) &&
               (wanted == nullptr || operation.target.overlapped == wanted);
    };
    int count = cancel(in, which) + cancel(out, which);
    // An AcceptEx that waits for its first bytes does so in the accepted socket's queue.
    if (state.load(std::memory_order_relaxed) == State::kListening)
        count += cancel_accepts_of(handle(), issuer, wanted);
    return count;
}

int cancel_accepts_of(UINT_PTR listener, uint64_t issuer, const OVERLAPPED* overlapped) {
    struct Search {
        UINT_PTR listener;
        uint64_t issuer;
        const OVERLAPPED* overlapped;
        int count;
    } search{listener, issuer, overlapped, 0};
    for_each(
        Kind::kSocket,
        [](Object* object, void* context) {
            auto& wanted = *static_cast<Search*>(context);
            auto& socket = static_cast<Socket&>(*object);
            wanted.count += socket.cancel(socket.in, [&](const Operation& operation) {
                return operation.work == Work::kAcceptData && operation.listener == wanted.listener &&
                       (wanted.issuer == 0 || operation.issuer == wanted.issuer) &&
                       (wanted.overlapped == nullptr || operation.target.overlapped == wanted.overlapped);
            });
        },
        &search);
    return search.count;
}

void cancel_accepts_into(const Socket& accepted) {
    for_each(
        Kind::kSocket,
        [](Object* object, void* context) {
            auto& listener = static_cast<Socket&>(*object);
            if (listener.state.load(std::memory_order_relaxed) == State::kListening)
                listener.cancel(listener.in,
                                [&](const Operation& operation) { return operation.accepted == context; });
        },
        const_cast<Socket*>(&accepted));
}

void cancel_of_thread(uint64_t id) {
    for_each(
        Kind::kSocket,
        [](Object* object, void* context) {
            auto& socket = static_cast<Socket&>(*object);
            const uint64_t wanted = *static_cast<uint64_t*>(context);
            const auto which = [&](const Operation& operation) {
                return operation.issuer == wanted && operation.target.port == nullptr;
            };
            socket.cancel(socket.in, which);
            socket.cancel(socket.out, which);
        },
        &id);
}

}  // namespace loopfast::winsock
