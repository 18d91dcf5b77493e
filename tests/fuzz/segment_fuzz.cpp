// A peer that writes into the segment: both ends of a fused connection are ours, and between their calls
// (with LOOPFAST_FUZZ_RACE: while they are made, by another thread) any word of the control page gets any
// value, also the bytes of the rings. Neither end may crash, wait, or touch what is not its own.
#include <atomic>
#include <thread>

#include "base/hidden.h"
#include "fuzz/end.h"

namespace loopfast::fuzz {
namespace {

void write_word(Segment* segment, size_t offset, Input& input) {
    auto* const place = reinterpret_cast<std::atomic<uint64_t>*>(reinterpret_cast<char*>(segment) + offset);
    const uint64_t value = input.value(place->load(std::memory_order_relaxed));
    place->store(value, std::memory_order_relaxed);
}

#ifdef LOOPFAST_FUZZ_RACE
/// Writes what its input says again and again, until it is told to stop.
class Writer {
public:
    Writer(Segment* segment, const uint8_t* bytes, size_t size)
        : thread_([this, segment, bytes, size] {
              while (!done_.load(std::memory_order_relaxed)) {
                  Input input(bytes, size);
                  while (!input.empty() && !done_.load(std::memory_order_relaxed))
                      write_word(segment, input.word(), input);
              }
          }) {}
    ~Writer() {
        done_.store(true, std::memory_order_relaxed);
        thread_.join();
    }

private:
    std::atomic<bool> done_{false};
    std::thread thread_;
};
#endif

void round(const uint8_t* bytes, size_t size) {
    StreamPair pair;
    check(pair.settle(), "fused");
    Segment* const segment = pair.connector().segment.segment;
#ifdef LOOPFAST_FUZZ_RACE
    if (size < 4)
        return;
    Writer writer(segment, bytes, size / 2);
    Input input(bytes + size / 2, size - size / 2);
    for (int steps = 0; !input.empty() && steps < 64; ++steps)
        step(pair.fd(input.byte() & 1), input);
#else
    Input input(bytes, size);
    for (int steps = 0; !input.empty() && steps < 128; ++steps) {
        const uint8_t what = input.byte();
        if ((what & 3) == 0)
            write_word(segment, input.word(), input);
        else
            step(pair.fd(what >> 2 & 1), input);
        if ((what >> 3 & 15) == 0)  // hang up, and go on
            shutdown(pair.stream(what >> 2 & 1).link.load(), SHUT_RDWR);
    }
#endif
}

}  // namespace
}  // namespace loopfast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    using namespace loopfast::fuzz;
    check_the_other_connection();
    const NoneIsLeft none;
    round(bytes, size);
    check_the_other_connection();
    return 0;
}
