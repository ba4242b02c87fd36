// The reads and writes of a step, without its arithmetic.
#pragma once

#include "engine.hpp"
#include "wide.hpp"

namespace adamas::ADAMAS_ISA {

// Goes through regions side by side, from tile `begin` to `end` of as many as each is cut into. What does not fill a
// register at the end of a region is left out.
inline void move(const Region* regions, std::size_t count, std::size_t begin, std::size_t end, std::size_t tiles) {
    std::uint32_t unknown = 0;
    __asm__("" : "+r"(unknown));  // to the compiler, which so writes what was read
    const Bits zero = Bits{} + unknown;
    Bits seen{};
    for (std::size_t t = begin; t < end; ++t) {
        for (std::size_t i = 0; i < count; ++i) {
            const Region region = regions[i];
            const std::size_t length = region.size / sizeof(Bits);
            char* at = region.data + length * t / tiles * sizeof(Bits);
            char* const last = region.data + length * (t + 1) / tiles * sizeof(Bits);
            if (region.written) {
                for (; at < last; at += sizeof(Bits)) write_to(at, read_as<Bits>(at) | zero);
            } else {
                for (; at < last; at += sizeof(Bits)) seen |= read_as<Bits>(at);
            }
        }
    }
    __asm__ volatile("" : : "m"(seen));  // so it is read
}

}  // namespace adamas::ADAMAS_ISA
