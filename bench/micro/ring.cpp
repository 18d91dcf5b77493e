// ring: the ring alone, without sockets, tables or waiting.
//
//   BM_write_and_read   both ends in one thread: the instructions, with warm caches
//   BM_round_trip       two threads on two processors, each spinning on the ring: the floor of a ping-pong,
//                       and what `pingpong` under loopfast is compared with
//   BM_transfer         two threads, one direction: the floor of a stream
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "segment/ring.h"
#include "segment/segment.h"

namespace {

using namespace loopfast;

void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/// One direction of a segment, with what each side keeps for itself.
struct Channel {
    Direction& direction;
    unsigned char* data;
    uint64_t capacity;
    alignas(64) ProducerState producer{};
    alignas(64) ConsumerState consumer{};

    Channel(MappedSegment& mapped, int number)
        : direction(mapped.segment->direction[number]), data(mapped.data(number)), capacity(mapped.capacity) {
    }

    size_t write(const void* from, size_t size) {
        const iovec part{const_cast<void*>(from), size};
        return RingWriter(direction, producer, data, capacity)
            .write(Buffers(&part, 1), size, capacity, true)
            .size;
    }
    size_t read(void* to, size_t size) {
        const iovec part{to, size};
        Buffers buffers(&part, 1);
        return RingReader(direction, consumer, data, capacity)
            .read(&buffers, size, RingReader::kConsume)
            .size;
    }
    bool readable() { return RingReader(direction, consumer, data, capacity).available() != 0; }
};

/// A segment with a channel each way; the descriptor is closed at once, as in the library.
struct Pair {
    MappedSegment mapped;
    Channel there, back;
    Pair() : mapped(make()), there(mapped, 0), back(mapped, 1) {}
    ~Pair() { unmap_segment(mapped); }
    static MappedSegment make() {
        int fd = -1;
        MappedSegment made = create_segment(kDefaultCapacity, fd);
        close(fd);
        return made;
    }
};

void read_all(Channel& channel, char* to, size_t size) {
    for (size_t got = 0; got < size;) {
        while (!channel.readable())
            pause_cpu();
        got += channel.read(to + got, size - got);
    }
}

void write_all(Channel& channel, const char* from, size_t size) {
    for (size_t put = 0; put < size;) {
        const size_t n = channel.write(from + put, size - put);
        if (n == 0)
            pause_cpu();
        put += n;
    }
}

void BM_write_and_read(benchmark::State& state) {
    Pair pair;
    const auto size = static_cast<size_t>(state.range(0));
    std::vector<char> from(size, 'f'), to(size);
    for (auto _ : state) {
        pair.there.write(from.data(), size);
        benchmark::DoNotOptimize(pair.there.read(to.data(), size));
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_write_and_read)->Arg(1)->Arg(64)->Arg(1024)->Arg(16384)->Arg(65536);

void BM_round_trip(benchmark::State& state) {
    Pair pair;
    const auto size = static_cast<size_t>(state.range(0));
    std::atomic<bool> stop{false};
    std::thread echo([&] {
        pin_to(0);
        std::vector<char> message(size);
        while (!stop.load(std::memory_order_relaxed)) {
            if (!pair.there.readable()) {
                pause_cpu();
                continue;
            }
            read_all(pair.there, message.data(), size);
            write_all(pair.back, message.data(), size);
        }
    });
    pin_to(1);
    std::vector<char> message(size, 'm');
    for (auto _ : state) {
        write_all(pair.there, message.data(), size);
        read_all(pair.back, message.data(), size);
    }
    stop.store(true);
    echo.join();
}
BENCHMARK(BM_round_trip)->Arg(64)->Arg(1024)->Arg(4096)->UseRealTime();

void BM_transfer(benchmark::State& state) {
    Pair pair;
    const auto size = static_cast<size_t>(state.range(0));
    std::atomic<bool> stop{false};
    std::thread sink([&] {
        pin_to(0);
        std::vector<char> buffer(65536);
        while (!stop.load(std::memory_order_relaxed))
            if (pair.there.read(buffer.data(), buffer.size()) == 0)
                pause_cpu();
    });
    pin_to(1);
    std::vector<char> buffer(size, 's');
    for (auto _ : state)
        write_all(pair.there, buffer.data(), size);
    stop.store(true);
    sink.join();
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_transfer)->Arg(1024)->Arg(16384)->Arg(65536)->UseRealTime();

}  // namespace
