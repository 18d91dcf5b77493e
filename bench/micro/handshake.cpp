// handshake: what it costs to fuse a connection, both ends in one thread. A connection is made, some bytes go
// back and forth, until it is on the ring where it may be, and it is closed; the difference of the two is the
// handshake's. As root with the looks at filters that root can make.
#include <benchmark/benchmark.h>

#include "stream_pair.h"
#include "wait/steward.h"

namespace loopfast {
namespace {

void connections(benchmark::State& state, uint64_t threshold, bool expected) {
    start_library();
    connect_steward();
    for (auto _ : state) {
        StreamPair pair(threshold);
        if (pair.settle() != expected)
            state.SkipWithError("it is on the other lane");
    }
    state.SetItemsProcessed(state.iterations());
}

void BM_connection_in_kernel(benchmark::State& state) { connections(state, UINT64_MAX / 2, false); }
BENCHMARK(BM_connection_in_kernel)->MinTime(0.5)->MeasureProcessCPUTime();

void BM_connection_fused(benchmark::State& state) { connections(state, 0, true); }
BENCHMARK(BM_connection_fused)->MinTime(0.5)->MeasureProcessCPUTime();

}  // namespace
}  // namespace loopfast
