// What the fuzzer gives, taken apart: a script of small steps, read byte by byte. Zeros when it is used up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "segment/layout.h"

namespace loopfast::fuzz {

class Input {
public:
    Input(const uint8_t* bytes, size_t size) : at_(bytes), end_(bytes + size) {}
    bool empty() const { return at_ == end_; }
    uint8_t byte() { return empty() ? 0 : *at_++; }
    uint64_t number(int bytes) {
        uint64_t value = 0;
        for (int i = 0; i < bytes; ++i)
            value |= uint64_t{byte()} << (8 * i);
        return value;
    }
    /// A size for a send or a receive, of one of several magnitudes.
    size_t size() {
        const uint8_t kind = byte();
        const size_t small = kind & 63;
        switch (kind >> 6) {
        case 0:
            return small;
        case 1:
            return small * 64;
        case 2:
            return small * 4096;
        default:
            return small * 65536;
        }
    }
    /// The place of one of the words of a segment.
    size_t word() { return byte() % (sizeof(Segment) / 8) * 8; }
    /// A value for a word that holds `now`: near it, near a bound, or anything.
    uint64_t value(uint64_t now) {
        switch (byte() & 7) {
        case 0:
            return 0;
        case 1:
            return ~uint64_t{0};
        case 2:
            return now + static_cast<uint64_t>(static_cast<int8_t>(byte()));
        case 3:
            return now + kDefaultCapacity - 2 + (byte() & 3);
        case 4:
            return now ^ uint64_t { 1 } << (byte() & 63);
        case 5:
            return (now + size()) << 3 | (byte() & 7);  // a jump record
        case 6:
            return now + size();
        default:
            return number(8);
        }
    }

private:
    const uint8_t* at_;
    const uint8_t* end_;
};

}  // namespace loopfast::fuzz
