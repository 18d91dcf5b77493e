// Waiting inside a blocking call: for readiness, the time, another thread's closesocket,
// WSACancelBlockingCall.
#pragma once

#include "winsock/native.h"
#include "winsock/socket.h"

namespace loopfast::winsock {

/// @return 0 when ready, WSAETIMEDOUT, or WSAEINTR.
int wait_until_ready(Socket& socket, short events, int64_t deadline);
/// The same for several descriptors; polls[0] is ours to fill in. @return 0 and how many are ready, 0 at the
/// deadline; or WSAEINTR.
int wait_for_polls(native::Poll* polls, unsigned count, int64_t deadline, int& ready);

/// A blocking call of the calling thread that uses a socket: who closes that wakes it. In the socket's list
/// from begin() to its end; not on the heap where it is one socket.
class BlockedCall {
public:
    BlockedCall() = default;
    ~BlockedCall() { end(); }
    BlockedCall(const BlockedCall&) = delete;
    BlockedCall& operator=(const BlockedCall&) = delete;
    /// @return false: the socket is closed already. The thread can be woken.
    bool begin(Socket& socket);
    void end();
    bool waits() const { return socket_ != nullptr; }
    /// Whether the socket was closed since.
    bool closed() const;

    const BlockedCall* next() const { return next_; }
    void wake() const { native::event_signal(wake_fd_); }

private:
    Socket* socket_ = nullptr;
    int wake_fd_ = -1;
    BlockedCall* next_ = nullptr;
};

/// While one lives the thread is inside something of the program's from which it must not call.
class InCallback {
public:
    InCallback() { ++this_thread().callback; }
    ~InCallback() { --this_thread().callback; }
    InCallback(const InCallback&) = delete;
    InCallback& operator=(const InCallback&) = delete;
};

}  // namespace loopfast::winsock
