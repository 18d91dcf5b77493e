// Which signal handlers of the program have run in this thread, and a sleep that notices them.
//
// The kernel runs no handler inside its calls: one that comes while a call waits ends the call, or begins it
// anew. Our calls are mostly user code, in which a handler runs unseen: in the spin before a sleep, or after
// the last look and before the sleep's system call. A program that leaves its loop when a handler has set a
// flag would then sleep with the flag set.
//
// So the way back from a program's handler, to which the kernel lets it return (sa_restorer), is ours: it
// counts, by what the handler asked for with SA_RESTART, and goes on with the kernel's rt_sigreturn. The
// handler itself stays in the kernel as the program gave it. And when what it interrupted stands between the
// look at that count and the system call in loopfast_sleep(), the way back leads past the call. A handler
// that jumps away never comes back there, nor to the call.
#pragma once

#include <pthread.h>
#include <sys/single_threaded.h>

#include <cstdint>

namespace loopfast {

extern "C" {
/// How many handlers without SA_RESTART have returned in this thread (lower half) and with it (upper half).
/// Only ever changed by this thread, on top of whatever it does.
extern constinit thread_local uint64_t loopfast_handlers_run __attribute__((visibility("hidden")));

/// What to put into sa_restorer: handler_return_x86_64.S, handler_return_aarch64.S.
void loopfast_return_interrupting() __attribute__((visibility("hidden")));
void loopfast_return_restarting() __attribute__((visibility("hidden")));

/// A system call, made only if no handler has returned since the count was `since`. @return its result, or
/// -EINTR.
long loopfast_sleep(long number, long a, long b, long c, long d, long e, long f, uint64_t since)
    __attribute__((visibility("hidden")));
}

/// The handlers that have returned since this was made.
class HandlersSince {
public:
    bool any() const { return now() != since_; }
    /// Those that end a call, as opposed to begin it anew.
    bool interrupting() const { return static_cast<uint32_t>(now()) != static_cast<uint32_t>(since_); }
    uint64_t value() const { return since_; }

private:
    /// Not volatile, which would keep it out of a register for good; but asked anew each time.
    static uint64_t now() { return __atomic_load_n(&loopfast_handlers_run, __ATOMIC_RELAXED); }

    uint64_t since_ = now();
};

/// loopfast_sleep() as a cancellation point, as libc makes them.
inline long sleep_in_call(long number, long a, long b, long c, long d, long e, long f,
                          const HandlersSince& since) {
    if (__libc_single_threaded)
        return loopfast_sleep(number, a, b, c, d, e, f, since.value());
    int type;
    // Around the one instruction that waits, with nothing in hand: what libc does in its own.
    // NOLINTNEXTLINE(concurrency-thread-canceltype-asynchronous)
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
    const long result = loopfast_sleep(number, a, b, c, d, e, f, since.value());
    pthread_setcanceltype(type, nullptr);
    return result;
}

}  // namespace loopfast
