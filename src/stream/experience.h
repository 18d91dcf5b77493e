// Whether a handshake has been worth its price lately. It costs both ends together some hundred system calls
// and a dozen new pages, which is what six exchanges over the kernel lane cost on one machine and twenty-five
// on another. A program whose connections all end after ten requests would pay it each time for nothing. So
// after many such ones in a row (of this process, in this role) a connection has to have carried as many
// messages as pay for a handshake before one is begun: then the kernel lane costs no more than twice what it
// would have cost to know beforehand. Connections that live on turn that back.
#pragma once

#include "policy/policy.h"
#include "stream/stream.h"

namespace loopfast {

/// A connection with fewer messages than these, both ways together, was not worth a handshake.
constexpr uint64_t kWorthwhile = 32;

struct Experience {
    std::atomic<int> too_short{0};  ///< connections in a row, more or less: hints, and relaxed throughout
};
inline Experience experience[2];  // of connectors, of acceptors

constexpr int kManyTooShort = 16;
constexpr int kMostTooShort = 24;
constexpr int kForALongOne = 4;

inline uint64_t messages_of(const Stream& stream) {
    const Counters& counters = stream.shared->counters;
    return counters.messages_in.load(std::memory_order_relaxed) +
           counters.messages_out.load(std::memory_order_relaxed);
}
inline std::atomic<int>& too_short(const Stream& stream) {
    return experience[stream.role == Role::kAcceptor ? 1 : 0].too_short;
}
/// A threshold other than the default, which somebody must have set, is obeyed to the letter.
inline bool goes_by_experience(const Stream& stream) { return stream.threshold == kDefaultThreshold; }

/// Is it time for a handshake, as far as experience goes?
inline bool may_be_worth_it(const Stream& stream) {
    if (!goes_by_experience(stream) || too_short(stream).load(std::memory_order_relaxed) < kManyTooShort)
        return true;
    // One message later at the acceptor: it looks when the offer is there.
    return messages_of(stream) >= kWorthwhile + (stream.role == Role::kAcceptor ? 1 : 0);
}

/// The connection ends.
inline void learn_from(const Stream& stream) {
    const SharedHalf& shared = *stream.shared;
    if (!goes_by_experience(stream) || shared.kernel_in.load(std::memory_order_relaxed) +
                                               shared.kernel_out.load(std::memory_order_relaxed) <=
                                           stream.threshold)
        return;
    std::atomic<int>& count = too_short(stream);
    const int now = count.load(std::memory_order_relaxed);
    const uint64_t messages = messages_of(stream);
    if (messages < kWorthwhile && now < kMostTooShort)
        count.store(now + 1, std::memory_order_relaxed);
    else if (messages >= 2 * kWorthwhile && now > 0)
        count.store(now > kForALongOne ? now - kForALongOne : 0, std::memory_order_relaxed);
}

}  // namespace loopfast
