// A stream of bytes that is known at every offset, so that a receiver can check any part of it.
//
// Two patterns share one connection's direction: the primary's bytes have the high bit clear, those of its
// forked relative, who takes over when the primary was killed, have it set. So the receiver sees the change
// without being told where it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace peer {

class Pattern {
public:
    Pattern(uint64_t seed, bool relative) : seed_{seed}, relative_{relative} {}

    void fill(unsigned char* out, size_t size, uint64_t offset) const {
        for (size_t done = 0; done < size;) {
            const uint64_t word = word_at((offset + done) / 8);
            const size_t skip = (offset + done) % 8;
            const size_t part = 8 - skip < size - done ? 8 - skip : size - done;
            memcpy(out + done, reinterpret_cast<const unsigned char*>(&word) + skip, part);
            done += part;
        }
    }

    /// @return the index of the first wrong byte, or `size`.
    size_t check(const unsigned char* data, size_t size, uint64_t offset) const {
        for (size_t done = 0; done < size;) {
            const uint64_t word = word_at((offset + done) / 8);
            const size_t skip = (offset + done) % 8;
            const size_t part = 8 - skip < size - done ? 8 - skip : size - done;
            const auto* expected = reinterpret_cast<const unsigned char*>(&word) + skip;
            if (memcmp(data + done, expected, part) != 0) {
                while (data[done] == *expected) {
                    ++done;
                    ++expected;
                }
                return done;
            }
            done += part;
        }
        return size;
    }

    static bool is_relatives(unsigned char byte) { return (byte & 0x80) != 0; }

private:
    uint64_t word_at(uint64_t index) const {
        uint64_t x = seed_ + index * 0x9e3779b97f4a7c15U;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
        x ^= x >> 31;
        constexpr uint64_t kHighBits = 0x8080808080808080U;
        return relative_ ? x | kHighBits : x & ~kHighBits;
    }

    uint64_t seed_;
    bool relative_;
};

/// Small random numbers, the same for the same seed.
class Dice {
public:
    explicit Dice(uint64_t seed) : state_{seed * 2654435761U + 88172645463325252U} {}

    uint64_t below(uint64_t bound) {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_ % bound;
    }

    /// Sizes as programs have them: mostly small, at times large.
    size_t size() {
        static constexpr size_t kBounds[] = {16, 100, 1000, 5000, 65536};
        return 1 + below(kBounds[below(5)]);
    }

private:
    uint64_t state_;
};

}  // namespace peer
