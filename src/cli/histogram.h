// Latencies of any number of round trips in constant memory: buckets with 7 significant bits, so that a
// percentile is exact to 0.8 %.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace loopfast::cli {

class Histogram {
public:
    void add(uint64_t nanoseconds) {
        ++buckets_[bucket(nanoseconds)];
        ++count_;
    }

    uint64_t count() const { return count_; }

    /// The value below which `fraction` of the samples lie, in nanoseconds; 0 without samples.
    double percentile(double fraction) const {
        const auto rank = static_cast<uint64_t>(fraction * static_cast<double>(count_));
        uint64_t seen = 0;
        for (size_t i = 0; i < buckets_.size(); ++i) {
            seen += buckets_[i];
            if (seen > rank)
                return middle(i);
        }
        return 0;
    }

private:
    static constexpr unsigned kBits = 7;
    static constexpr size_t kHalf = size_t{1} << kBits;

    // Below 2^7 each value is its own bucket; above, each power of two has 2^7 of them.
    static size_t bucket(uint64_t value) {
        if (value < kHalf)
            return value;
        const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
        return (size_t{shift} + 1) * kHalf + (value >> shift) - kHalf;
    }

    static double middle(size_t bucket) {
        if (bucket < kHalf)
            return static_cast<double>(bucket);
        const size_t shift = bucket / kHalf - 1;
        const auto low = static_cast<double>((bucket % kHalf + kHalf) << shift);
        return low + static_cast<double>(uint64_t{1} << shift) / 2;
    }

    std::vector<uint64_t> buckets_ = std::vector<uint64_t>((64 - kBits + 1) * kHalf);
    uint64_t count_ = 0;
};

}  // namespace loopfast::cli
