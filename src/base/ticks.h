// A clock for "has it been a while": the processor's own counter, a few nanoseconds to read. Coarse by
// nature; whatever hangs on it only decides how often to look at something.
#pragma once

#include <cstdint>

namespace loopfast {

inline uint64_t ticks() {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    uint64_t value;
    asm volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#endif
}

#if defined(__x86_64__)
// Time-stamp counters run at 1 to 5 GHz.
constexpr uint64_t kTicksPer50us = 100'000;
constexpr uint64_t kTicksPerMs = 2'000'000;
#else
// The generic timer runs at 24 MHz to 1 GHz.
constexpr uint64_t kTicksPer50us = 2'500;
constexpr uint64_t kTicksPerMs = 50'000;
#endif

}  // namespace loopfast
