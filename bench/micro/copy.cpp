// copy: the fault-tolerant copy against the C library's memcpy, which it must not fall behind.
//
// The buffers fit the second-level cache together up to 64 KiB: this is the routine's own cost. What a
// copy costs when the other processor has just written the bytes is measured in ring.cpp.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "base/copy.h"

namespace {

void BM_loopfast_copy(benchmark::State& state) {
    const auto size = static_cast<size_t>(state.range(0));
    std::vector<char> from(size, 'f'), to(size);
    for (auto _ : state) {
        benchmark::DoNotOptimize(loopfast::loopfast_copy(to.data(), from.data(), size));
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

void BM_memcpy(benchmark::State& state) {
    const auto size = static_cast<size_t>(state.range(0));
    std::vector<char> from(size, 'f'), to(size);
    for (auto _ : state) {
        benchmark::DoNotOptimize(std::memcpy(to.data(), from.data(), size));
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

void sizes(benchmark::internal::Benchmark* benchmark) {
    for (int size : {1, 7, 16, 33, 64, 100, 256, 1000, 1500, 4096, 16384, 65536, 1 << 20})
        benchmark->Arg(size);
}
BENCHMARK(BM_loopfast_copy)->Apply(sizes);
BENCHMARK(BM_memcpy)->Apply(sizes);

}  // namespace
