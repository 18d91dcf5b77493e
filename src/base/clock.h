// Time for waits: monotonic nanoseconds, and what "for ever" is.
#pragma once

#include <time.h>

#include <cstdint>

namespace loopfast {

constexpr int64_t kForever = INT64_MAX;

#ifdef LOOPFAST_INJECT
int64_t injected_jump();  // base/inject.cpp
#else
constexpr int64_t injected_jump() { return 0; }
#endif

/// The kernel's clocks, read as libc does, but not through clock_gettime, before which others stand:
/// libfaketime can make time stand still for the program, and then no deadline would ever come. A system call
/// until find_clock() has run.
extern int (*read_clock)(clockid_t clock, timespec* time);
void find_clock();

inline int64_t now_ns() {
    timespec t;
    read_clock(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec + injected_jump();
}

/// What this thread has used of a processor: what a piece of work costs, whoever else is at work.
inline int64_t thread_time_ns() {
    timespec t;
    read_clock(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

/// The moment `duration` nanoseconds from now; kForever stays kForever.
inline int64_t deadline_after(int64_t duration) {
    if (duration == kForever)
        return kForever;
    const int64_t now = now_ns();
    return duration > kForever - now ? kForever : now + duration;
}

/// What is left until `deadline`, not below 0.
inline int64_t time_left(int64_t deadline) {
    if (deadline == kForever)
        return kForever;
    const int64_t left = deadline - now_ns();
    return left > 0 ? left : 0;
}

/// A timespec for ppoll and friends; nullptr stands for "for ever".
inline timespec* as_timespec(int64_t left, timespec& storage) {
    if (left == kForever)
        return nullptr;
    storage.tv_sec = left / 1'000'000'000LL;
    storage.tv_nsec = left % 1'000'000'000LL;
    return &storage;
}

inline void pause_cpu() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    asm volatile("yield");
#endif
}

}  // namespace loopfast
