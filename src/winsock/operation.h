// One overlapped operation: what is left to be done, and whom to tell.
//
// An operation is tried at once by the call that asks for it; only one that must wait becomes an Operation,
// in the queue of one direction of its socket. Operations are used again: a socket keeps a few, a thread
// those that its routines came with.
#pragma once

#include <sys/uio.h>

#include "winsock/address.h"
#include "winsock/port.h"
#include "winsock/thread.h"
#include "winsock/waitable.h"

namespace loopfast::winsock {

class Socket;

/// The upcalls of a WSPStartup, see provider.cpp; kept for good.
struct Provider {
    WSPUPCALLTABLE upcalls;
    Provider* next;
};
/// The call came through a provider's table: its routine goes to this thread, through these upcalls.
struct ProviderCall {
    const Provider* provider;
    WSATHREADID thread;
    bool has_thread;
};
extern constinit thread_local ProviderCall provider_call;

/// Whom to tell of a completion, and how. make_target() fills it in.
struct Target {
    OVERLAPPED* overlapped;
    Event* event;       ///< counted, like the thread
    Port* port;         ///< nullptr also where the lowest bit of hEvent forbids a packet
    bool port_counted;  ///< else its socket keeps it
    bool skip_success;  ///< no packet for what succeeds at once
    ULONG_PTR key;
    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine;
    Thread* thread;     ///< whose routine it is
    ProviderCall call;  ///< only where there is a routine
};

/// Checks what an overlapped call names and marks the OVERLAPPED as pending. @return 0 or an error, without
/// effect on that.
int make_target(Socket& socket, OVERLAPPED* overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
                Target& target);
/// It failed at once: no completion will be told, the error is returned.
void forget(Target& target, int error);

enum class Work : uint8_t { kReceive, kSend, kAccept, kAcceptData, kConnect, kDisconnect };

struct Operation {
    Operation* next = nullptr;
    Routine routine;  ///< while it is queued to a thread
    Target target = {};
    Work work = Work::kReceive;
    uint64_t issuer = 0;  ///< Thread::id

    static constexpr unsigned kSmall = 4;
    iovec small[kSmall];
    iovec* parts = small;  ///< what is left
    unsigned count = 0;
    size_t total = 0;
    size_t done = 0;
    int flags = 0;  ///< Linux's
    bool wait_all = false;
    sockaddr* from = nullptr;
    int* from_size = nullptr;
    Address to;  ///< empty: none

    // AcceptEx.
    Socket* accepted = nullptr;  ///< counted
    UINT_PTR listener = 0;
    char* output = nullptr;
    DWORD data_size = 0;
    DWORD local_size = 0;
    DWORD remote_size = 0;

    // For the routine.
    DWORD error = 0;
    DWORD bytes = 0;
    DWORD result_flags = 0;

    /// Forgets the first `size` bytes of the parts.
    void advance(size_t size);
    void set_parts(const iovec* given, unsigned number);

private:
    iovec* large_ = nullptr;
    unsigned large_room_ = 0;

public:
    Operation() = default;
    ~Operation() { delete[] large_; }
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
};

/// The operation is over: tells its target, at once or, with a routine, in its thread's next alertable wait.
/// `immediate`: the call itself did it. @param operation may be nullptr when there is no routine.
void complete(Target& target, Operation* operation, int error, size_t bytes, DWORD flags, bool immediate);
/// A routine that will not run any more gives its operation back.
void give_back(Operation* operation);
/// An operation for a routine of the calling thread.
Operation* spare_operation();

/// What a thread has pending outside of ports ends with it.
void cancel_of_thread(uint64_t id);

}  // namespace loopfast::winsock
