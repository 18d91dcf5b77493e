// What is known of a packet that carries data of an established TCP connection over lo, for judging a rule
// without the packet: some bits of it, and not the rest. A comparison with them comes out "never", "always"
// or "maybe"; a rule that never matches does not count, whatever it would do.
#pragma once

#include <cstddef>
#include <cstdint>

#include "filters/inspect.h"

namespace loopfast {

enum class Match : uint8_t { kNever, kMaybe, kAlways };

inline Match both(Match a, Match b) { return a < b ? a : b; }
inline Match opposite(Match match) {
    return match == Match::kNever ? Match::kAlways : match == Match::kAlways ? Match::kNever : Match::kMaybe;
}

/// Where in the kernel the packet is looked at. The numbers are netfilter's.
enum class Hook : uint32_t {
    kPrerouting = 0,
    kInput = 1,
    kForward = 2,
    kOutput = 3,
    kPostrouting = 4,
    kIngress = 5
};

/// What differs from one place to another.
struct Place {
    Hook hook;
    bool v6;
    bool tracked;  ///< connection tracking has seen the packet before
    const LoName& lo = kLoUsually;

    bool incoming() const {
        return hook == Hook::kPrerouting || hook == Hook::kInput || hook == Hook::kIngress;
    }
    /// As the kernel compares them: 16 bytes, all zero where there is no device.
    const char* in_name() const { return incoming() ? lo.text : kNoName; }
    const char* out_name() const { return incoming() ? kNoName : lo.text; }

    static constexpr char kNoName[16] = "";
};

// A packet with data has ACK and not SYN; the rest may be anything.
constexpr unsigned char kKnownTcpFlags = 0x12;
constexpr unsigned char kTcpFlags = 0x10;

/// Connection tracking's state of such a packet, as nftables and xtables number it: established.
constexpr uint32_t kEstablishedBit = 2;

/// A run of bytes of which each bit is known or is not.
class Bits {
public:
    static constexpr size_t kMost = 64;

    void forget() { forget(0, kMost); }
    void forget(size_t at, size_t size) {
        for (size_t i = at; i < at + size && i < kMost; ++i)
            known_[i] = 0;
    }
    void set(size_t at, const void* value, size_t size) {
        for (size_t i = 0; i < size && at + i < kMost; ++i)
            set_byte(at + i, static_cast<const unsigned char*>(value)[i], 0xff);
    }
    void set_byte(size_t at, unsigned char value, unsigned char known) {
        if (at < kMost) {
            known_[at] = known;
            value_[at] = value & known;
        }
    }
    /// (bits & mask) ^ other.
    void combine(size_t from, size_t to, const unsigned char* mask, const unsigned char* other, size_t size) {
        for (size_t i = 0; i < size && from + i < kMost && to + i < kMost; ++i) {
            const auto known = static_cast<unsigned char>(known_[from + i] | ~mask[i]);
            set_byte(to + i, static_cast<unsigned char>((value_[from + i] & mask[i]) ^ other[i]), known);
        }
    }
    bool unknown_from(size_t at) const {
        for (; at < kMost; ++at)
            if (known_[at] != 0)
                return false;
        return true;
    }
    bool known(size_t at, size_t size) const {
        for (size_t i = at; i < at + size; ++i)
            if (i >= kMost || known_[i] != 0xff)
                return false;
        return true;
    }
    const unsigned char* value(size_t at) const { return value_ + at; }
    Match equal(size_t at, const unsigned char* other, size_t size) const {
        bool all = true;
        for (size_t i = 0; i < size; ++i) {
            if (at + i >= kMost)
                return Match::kMaybe;
            if (((value_[at + i] ^ other[i]) & known_[at + i]) != 0)
                return Match::kNever;
            all = all && known_[at + i] == 0xff;
        }
        return all ? Match::kAlways : Match::kMaybe;
    }

private:
    unsigned char value_[kMost] = {};
    unsigned char known_[kMost] = {};
};

/// An extension match of xtables ("conntrack", "tcp", "comment", ...), which iptables uses over both of its
/// back ends. What is not known by name is "maybe".
Match judge_extension(const char* name, unsigned revision, const unsigned char* data, size_t size,
                      const Place& place);

}  // namespace loopfast
