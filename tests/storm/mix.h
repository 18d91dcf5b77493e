// Numbers that look random and follow from a number: for seeds, and for bytes that follow from their
// position.
#pragma once

#include <cstdint>

inline uint64_t mix(uint64_t value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9U;
    value = (value ^ value >> 27) * 0x94d049bb133111ebU;
    return value ^ value >> 31;
}
