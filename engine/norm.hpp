// Sums of the squares of gradients, in whatever format they are stored.
#pragma once

#include "sums.hpp"
#include "tiles.hpp"

namespace adamas::ADAMAS_ISA {

template <class T>
void squares_of(const Block& block, std::size_t begin, std::size_t end, double unit, std::size_t lane, Lanes& sums) {
    if (block.g.type == native<T> && !block.g.view && unit == 1.0)
        return add_squares<T>(sums, end - begin, lane, numbers_at(static_cast<const T*>(block.g.data) + begin));
    T numbers[tile];
    double scaled[tile];
    for (std::size_t start = begin; start < end; start += tile) {
        const std::size_t n = end - start < tile ? end - start : tile, next = (lane + start - begin) % sum_lanes;
        load(block.g, start, n, numbers);
        if (unit == 1.0) {
            add_squares<T>(sums, n, next, numbers_at(numbers));
        } else {
            for (std::size_t k = 0; k < n; ++k) scaled[k] = unit * numbers[k];
            add_squares<double>(sums, n, next, numbers_at(scaled));
        }
    }
}

inline void squares(const Block& block, std::size_t begin, std::size_t end, double unit, std::size_t lane,
                    double* lanes) {
    Lanes sums(lanes);
    (block.g.type == Type::float64 ? squares_of<double> : squares_of<float>)(block, begin, end, unit, lane, sums);
    sums.copy_to(lanes);
}

}  // namespace adamas::ADAMAS_ISA
