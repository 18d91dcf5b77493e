// See inject.h. For the campaign (tests/programs/faults_test.py) any call fails now and then, and the clock
// jumps:
//
//     LOOPFAST_INJECT_RATE=N       about each Nth call fails
//     LOOPFAST_INJECT_SEED=N
//     LOOPFAST_INJECT_COUNTS=FILE  512 counters of what was injected, by number of the call, of all processes
//     LOOPFAST_INJECT_JUMP=MS      the clock is off by up to so much, another way every few readings
#ifdef LOOPFAST_INJECT

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "base/clock.h"
#include "base/inject.h"
#include "base/syscall.h"

namespace loopfast {

namespace {

uint64_t rate = 0;
uint64_t seed = 0;
int64_t jump_ns = 0;
std::atomic<uint32_t> nowhere[512];
std::atomic<uint32_t>* counts = nowhere;
thread_local uint64_t state = 0;

/// What a test has ordered. The number is stored last, with release, and read first, with acquire: who finds
/// it finds the rest. The counts are single steps of their own.
std::atomic<long> ordered_number{-1};
std::atomic<long> ordered_second{-1};
std::atomic<int> ordered_error{0};
std::atomic<int> ordered_after{0};
std::atomic<int> ordered_count{0};
std::atomic<int> ordered_done{0};
std::atomic<void (*)()> ordered_action{nullptr};

long ordered(long number, long second) {
    if (ordered_number.load(std::memory_order_acquire) != number)
        return 0;
    const long wanted = ordered_second.load(std::memory_order_relaxed);
    if ((wanted != -1 && wanted != second) || ordered_after.fetch_sub(1, std::memory_order_relaxed) > 0 ||
        ordered_count.fetch_sub(1, std::memory_order_relaxed) <= 0)
        return 0;
    ordered_done.fetch_add(1, std::memory_order_relaxed);
    if (void (*const act)() = ordered_action.load(std::memory_order_relaxed)) {
        act();
        return 0;
    }
    return -ordered_error.load(std::memory_order_relaxed);
}

uint64_t number_from(const char* name) {
    const char* const text = getenv(name);
    return text != nullptr ? strtoull(text, nullptr, 10) : 0;
}

[[gnu::constructor(102)]] void open_campaign() {
    seed = number_from("LOOPFAST_INJECT_SEED");
    jump_ns = static_cast<int64_t>(number_from("LOOPFAST_INJECT_JUMP")) * 1'000'000;
    if (const char* const file = getenv("LOOPFAST_INJECT_COUNTS")) {
        const int fd = open(file, O_RDWR | O_CLOEXEC);
        void* const memory = mmap(nullptr, sizeof nowhere, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory != MAP_FAILED)
            counts = static_cast<std::atomic<uint32_t>*>(memory);
        if (fd >= 0)
            close(fd);
    }
    rate = number_from("LOOPFAST_INJECT_RATE");
}

uint64_t draw() {
    if (state == 0)
        state = (seed + 1) * 0x9e3779b97f4a7c15 ^ static_cast<uint64_t>(syscall(SYS_gettid)) << 20 ^
                static_cast<uint64_t>(syscall(SYS_getpid));
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/// Messages and receives are also made in the program's name, on its TCP socket, where their errors would be
/// the program's to see, and an EAGAIN where epoll has just told of bytes is no fault that a kernel makes.
/// Those on links and netlink sockets are all ours.
bool ours_alone(long number, long fd) {
    if (number != SYS_recvfrom && number != SYS_recvmsg && number != SYS_sendmsg)
        return true;
    int domain = 0;
    socklen_t size = sizeof domain;
    return sys::plain_call(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, sys::word(&domain), sys::word(&size),
                           0) == 0 &&
           (domain == AF_UNIX || domain == AF_NETLINK);
}

/// What the kernel could say to this call at any time. Not: calls that cannot fail, a close (the descriptor
/// would be gone all the same), a wait in the program's name, whose EINTR needs a signal.
long plausible(long number, long second, uint64_t choice) {
    const auto one_of = [&](long a, long b, long c) { return choice % 3 == 0 ? a : choice % 3 == 1 ? b : c; };
    switch (number) {
    case SYS_socket:
    case SYS_memfd_create:
    case SYS_epoll_create1:
    case SYS_eventfd2:
    case SYS_signalfd4:
    case SYS_openat:
        return one_of(-EMFILE, -ENFILE, -ENOMEM);
    case SYS_accept4:
        return one_of(-EMFILE, -EINTR, -ENOMEM);
    case SYS_fcntl:
        return second == F_DUPFD_CLOEXEC ? -EMFILE : 0;
    case SYS_ftruncate:
        return one_of(-ENOSPC, -EINTR, -ENOMEM);
    case SYS_mmap:
    case SYS_mremap:
    case SYS_madvise:
        return -ENOMEM;
    case SYS_bind:
    case SYS_listen:
        return one_of(-ENOMEM, -EADDRINUSE, -ENOBUFS);
    case SYS_connect:
        return one_of(-EAGAIN, -EINTR, -ENOMEM);
    case SYS_epoll_ctl:
        return second == 1 ? one_of(-ENOMEM, -ENOSPC, -ENOMEM) : 0;
    case SYS_getsockopt:
    case SYS_setsockopt:
        return one_of(-ENOMEM, -ENOBUFS, -ENOMEM);
    case SYS_prlimit64:
        return -EPERM;
    case SYS_bpf:
        return -ENOMEM;
    case SYS_sendto:  // what goes over links and netlink, and what is sent back to the kernel lane
        return one_of(-ENOMEM, -ENOBUFS, -ENOMEM);
    case SYS_sendmsg:  // links: handshakes, with a descriptor or without
        return one_of(-ENOMEM, -ENOBUFS, -ETOOMANYREFS);
    case SYS_recvfrom:  // netlink's answers, and bells
    case SYS_recvmsg:
        return one_of(-ENOMEM, -ENOBUFS, -ENOMEM);
    case SYS_nanosleep:
    case SYS_read:
    case SYS_pread64:
        return -EINTR;
    default:
        return 0;
    }
}

}  // namespace

long sys::injected_error(long number, long first, long second) {
    if (!ours_alone(number, first))
        return 0;
    if (const long error = ordered(number, second); error != 0)
        return error;
    if (rate == 0 || draw() % rate != 0)
        return 0;
    const long error = plausible(number, second, draw() >> 32);
    if (error != 0)
        counts[number & 511].fetch_add(1, std::memory_order_relaxed);
    return error;
}

namespace {

void order(long number, int error, int count, int after, long second, void (*act)()) {
    ordered_number.store(-1, std::memory_order_relaxed);
    ordered_second.store(second, std::memory_order_relaxed);
    ordered_error.store(error, std::memory_order_relaxed);
    ordered_after.store(after, std::memory_order_relaxed);
    ordered_count.store(count, std::memory_order_relaxed);
    ordered_done.store(0, std::memory_order_relaxed);
    ordered_action.store(act, std::memory_order_relaxed);
    ordered_number.store(number, std::memory_order_release);
}

}  // namespace

void inject_fault(long number, int error, int count, int after, long second) {
    order(number, error, count, after, second, nullptr);
}

void inject_action(long number, void (*act)(), int after, long second) {
    order(number, 0, 1, after, second, act);
}

int injected_so_far() { return ordered_done.load(std::memory_order_relaxed); }

int injected_faults() {
    ordered_number.store(-1, std::memory_order_relaxed);
    return injected_so_far();
}

// For programs under which this library is preloaded.
extern "C" __attribute__((visibility("default"))) void
loopfast_inject_fault(long number, int error, int count, int after, long second) {
    inject_fault(number, error, count, after, second);
}
extern "C" __attribute__((visibility("default"))) int loopfast_injected_faults() { return injected_faults(); }

int64_t injected_jump() {
    if (jump_ns == 0)
        return 0;
    static std::atomic<int64_t> now{0};
    if (draw() % 16 == 0) {
        now.store(static_cast<int64_t>(draw() % static_cast<uint64_t>(jump_ns)), std::memory_order_relaxed);
        counts[SYS_clock_gettime].fetch_add(1, std::memory_order_relaxed);
    }
    return now.load(std::memory_order_relaxed);
}

}  // namespace loopfast

#endif
