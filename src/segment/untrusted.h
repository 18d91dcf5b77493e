// A word that the peer can write at any time. Its type does not convert to a number: one takes a snapshot,
// once, and only a bounds check gets a usable value out of the snapshot. So "fetched twice" and "used
// unchecked" are compile errors rather than habits.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace loopfast {

/// A value read once from shared memory and not yet judged.
template <typename T> class Snapshot {
public:
    explicit Snapshot(T raw) : raw_(raw) {}

    /// The value, if it lies within [low, low + span]; computed modulo 2^n, so no comparison overflows.
    std::optional<T> within(T low, T span) const {
        return static_cast<T>(raw_ - low) <= span ? std::optional<T>(raw_) : std::nullopt;
    }
    /// Truth of the word: any value is one, there is nothing to check.
    bool is_set() const { return raw_ != 0; }
    bool equals(T expected) const { return raw_ == expected; }
    /// The value for a use where every value is harmless; the reason stands at the call.
    T harmless() const { return raw_; }

private:
    T raw_;
};

/// A word in a segment. The memory order of each access stands at the call, with the one it pairs with.
template <typename T> class Untrusted {
public:
    Snapshot<T> load(std::memory_order order) const { return Snapshot<T>(word_.load(order)); }
    void store(T value, std::memory_order order) { word_.store(value, order); }
    bool replace(T expected, T desired, std::memory_order order) {
        return word_.compare_exchange_strong(expected, desired, order, std::memory_order_relaxed);
    }
    Snapshot<T> exchange(T value, std::memory_order order) {
        return Snapshot<T>(word_.exchange(value, order));
    }

private:
    std::atomic<T> word_;
    static_assert(std::atomic<T>::is_always_lock_free);
};

}  // namespace loopfast
