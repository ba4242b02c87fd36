// Sums of squares whose bits depend neither on threads nor on how the numbers are cut into arrays.
#pragma once

#include "tiles.hpp"

namespace adamas::ADAMAS_ISA {

// Adds the square of number i to partial sum (lane + i) % norm_lanes, in float64.
template <class S>
void add_squares(const S* g, std::size_t n, double unit, std::size_t lane, double* sums) {
    const auto add = [&](std::size_t count) {
        for (; count > 0; --count, --n) {
            const double x = static_cast<double>(*g++) * unit;
            sums[lane] += x * x;
            lane = (lane + 1) % norm_lanes;
        }
    };
    const std::size_t head = (norm_lanes - lane) % norm_lanes;
    add(head < n ? head : n);
    if (n >= norm_lanes) {
        double own[norm_lanes];  // so that the compiler may keep them in registers
        std::memcpy(own, sums, sizeof own);
        for (; n >= norm_lanes; n -= norm_lanes, g += norm_lanes) {
#pragma GCC unroll 32
            for (std::size_t i = 0; i < norm_lanes; ++i) {
                const double x = static_cast<double>(g[i]) * unit;
                own[i] += x * x;
            }
        }
        std::memcpy(sums, own, sizeof own);
    }
    add(n);
}

inline void squares(const Block& block, std::size_t begin, std::size_t end, double unit, std::size_t lane,
                    double* sums) {
    const auto add = [&](auto stored) {
        using S = decltype(stored);
        if (block.g.type == Type::float32 && !block.g.view && sizeof(S) == sizeof(float))
            return add_squares(static_cast<const float*>(block.g.data) + begin, end - begin, unit, lane, sums);
        S numbers[tile];
        for (std::size_t start = begin; start < end; start += tile) {
            const std::size_t n = end - start < tile ? end - start : tile;
            load(block.g, start, n, numbers);
            add_squares(numbers, n, unit, (lane + start - begin) % norm_lanes, sums);
        }
    };
    block.g.type == Type::float64 ? add(double{}) : add(float{});
}

}  // namespace adamas::ADAMAS_ISA
