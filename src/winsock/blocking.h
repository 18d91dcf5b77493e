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

/// While one lives the thread is inside something of the program's from which it must not call.
class InCallback {
public:
    InCallback() { ++this_thread().callback; }
    ~InCallback() { --this_thread().callback; }
    InCallback(const InCallback&) = delete;
    InCallback& operator=(const InCallback&) = delete;
};

}  // namespace loopfast::winsock
