// See blocking.h. A blocking call polls its descriptor and one eventfd of its thread, which is how others get
// it out. Hooks are those of Winsock 1.1: called until they say FALSE, again after every short sleep.
#include "winsock/blocking.h"

#include <cerrno>

#include "winsock/provider.h"
#include "winsock/startup.h"

namespace loopfast::winsock {

namespace {

constexpr int64_t kHookPause = 5'000'000;

bool cancelled(Thread& thread) { return thread.cancelled.exchange(0, std::memory_order_seq_cst) != 0; }

/// Calls the program's hook, or the provider's blocking callback. @return false: there is none.
bool call_hook(Thread& thread) {
    if (thread.hook != nullptr) {
        InCallback inside;
        const auto hook = reinterpret_cast<BOOL (*)()>(reinterpret_cast<void*>(thread.hook));
        while (thread.cancelled.load(std::memory_order_seq_cst) == 0 && hook() != FALSE) {
        }
        return true;
    }
    return call_blocking_callback(thread);
}

}  // namespace

int wait_for_polls(native::Poll* polls, unsigned count, int64_t deadline, int& ready) {
    Thread& thread = this_thread();
    ready = 0;
    if (!thread.can_be_woken())
        return WSAENOBUFS;
    NotRunning pause(thread);
    polls[0] = {thread.wake_fd, native::kIn, 0};
    if (thread.blocking++ == 0)
        thread.cancelled.store(0, std::memory_order_seq_cst);
    thread.polling.fetch_add(1, std::memory_order_seq_cst);
    int error = 0;
    for (;;) {
        const bool hooked = call_hook(thread);
        // A blocking call waits alertably: routines and APCs run, and it goes on.
        thread.run_routines();
        if (cancelled(thread)) {
            error = WSAEINTR;
            break;
        }
        int64_t timeout = left_until(deadline);
        if (hooked && timeout > kHookPause)
            timeout = kHookPause;
        const int result = native::poll(polls, count, timeout);
        if (cancelled(thread)) {
            error = WSAEINTR;
            break;
        }
        if (result == -EINTR)
            continue;
        if (result < 0) {
            error = WSAENOBUFS;
            break;
        }
        const bool woken = polls[0].revents != 0;
        if (woken)
            native::event_drain(thread.wake_fd);
        ready = result - (woken ? 1 : 0);
        if (ready == 0 && woken && thread.has_routines())
            continue;
        if (ready > 0 || woken || left_until(deadline) == 0)
            break;
    }
    thread.polling.fetch_sub(1, std::memory_order_seq_cst);
    --thread.blocking;
    return error;
}

bool BlockedCall::begin(Socket& socket) {
    Thread& thread = this_thread();
    wake_fd_ = thread.wake_fd;
    Hold hold(socket.blocked_lock);
    if (socket.closing)
        return false;
    socket_ = &socket;
    next_ = socket.blocked;
    socket.blocked = this;
    return true;
}

void BlockedCall::end() {
    if (socket_ == nullptr)
        return;
    Hold hold(socket_->blocked_lock);
    BlockedCall** place = &socket_->blocked;
    while (*place != this)
        place = &(*place)->next_;
    *place = next_;
    socket_ = nullptr;
}

bool BlockedCall::closed() const {
    if (socket_ == nullptr)
        return true;
    Hold hold(socket_->blocked_lock);
    return socket_->closing;
}

int wait_until_ready(Socket& socket, short events, int64_t deadline) {
    if (!this_thread().can_be_woken())
        return WSAENOBUFS;
    BlockedCall call;
    if (!call.begin(socket))
        return WSAEINTR;
    native::Poll polls[2] = {{}, {socket.fd(), events, 0}};
    int ready = 0;
    int error = 0;
    do {
        error = wait_for_polls(polls, 2, deadline, ready);
        if (call.closed())
            error = WSAEINTR;
        else if (error == 0 && ready == 0 && left_until(deadline) == 0)
            error = WSAETIMEDOUT;
    } while (error == 0 && ready == 0);
    return error;
}

}  // namespace loopfast::winsock

using namespace loopfast::winsock;

LOOPFAST_API FARPROC WSAAPI WSASetBlockingHook(FARPROC hook) {
    if (!started()) {
        last_error = WSANOTINITIALISED;
        return nullptr;
    }
    return std::exchange(this_thread().hook, hook);
}

LOOPFAST_API int WSAAPI WSAUnhookBlockingHook(void) {
    if (!started())
        return reported(WSANOTINITIALISED);
    this_thread().hook = nullptr;
    return 0;
}

LOOPFAST_API BOOL WSAAPI WSAIsBlocking(void) { return this_thread().blocking > 0; }

LOOPFAST_API int WSAAPI WSACancelBlockingCall(void) {
    if (!started())
        return reported(WSANOTINITIALISED);
    Thread& thread = this_thread();
    if (thread.blocking == 0)
        return reported(WSAEINVAL);
    thread.cancelled.store(1, std::memory_order_seq_cst);
    native::event_signal(thread.wake_fd);
    return 0;
}
