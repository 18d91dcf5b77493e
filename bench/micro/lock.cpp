// lock: taking and releasing the lock that is held for each copy, nobody else wanting it.
#include <benchmark/benchmark.h>

#include <mutex>

#include "base/lock.h"

namespace {

void BM_family_lock(benchmark::State& state) {
    loopfast::FamilyLock lock;
    for (auto _ : state) {
        loopfast::Hold hold(lock);
        benchmark::ClobberMemory();
    }
}
BENCHMARK(BM_family_lock);

void BM_std_mutex(benchmark::State& state) {
    std::mutex lock;
    for (auto _ : state) {
        std::lock_guard hold(lock);
        benchmark::ClobberMemory();
    }
}
BENCHMARK(BM_std_mutex);

}  // namespace
