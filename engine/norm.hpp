// Sums of squares whose bits depend neither on threads nor on how the numbers are cut into arrays.
#pragma once

#ifdef __AVX__
#include <immintrin.h>
#endif

#include "tiles.hpp"

namespace adamas::ADAMAS_ISA {

constexpr std::size_t part_size = 4;
typedef double Part __attribute__((vector_size(part_size * sizeof(double))));

// Reads four numbers as float64.
inline void read_part(const double* from, Part& to) {
    std::memcpy(&to, from, sizeof to);
}
inline void read_part(const float* from, Part& to) {
#ifdef __AVX__  // GCC 12 converts two at a time, which takes twice as long
    to = _mm256_cvtps_pd(_mm_loadu_ps(from));
#else
    for (std::size_t i = 0; i < part_size; ++i) to[i] = from[i];
#endif
}

// Adds what `term` makes of each x[i], in place and in float64, to partial sum (lane + i) % sum_lanes. It also takes a
// Part.
template <class T, class Term>
void add_terms(const T* x, std::size_t n, std::size_t lane, double* sums, const Term& term) {
    const auto add = [&](std::size_t count) {
        n -= count;
        for (; count > 0; --count, lane = (lane + 1) % sum_lanes) {
            auto number = static_cast<double>(*x++);
            term(number);
            sums[lane] += number;
        }
    };
    const std::size_t head = (sum_lanes - lane) % sum_lanes;
    add(head < n ? head : n);
    if (n >= sum_lanes) {
        Part own[sum_lanes / part_size];  // by hand, because compilers find no good way
        std::memcpy(own, sums, sizeof own);
        for (; n >= sum_lanes; n -= sum_lanes) {
            for (Part& part : own) {
                Part numbers;
                read_part(x, numbers);
                term(numbers);
                part += numbers;
                x += part_size;
            }
        }
        std::memcpy(sums, own, sizeof own);
    }
    add(n);
}

template <class T>
void add_squares(const T* g, std::size_t n, double unit, std::size_t lane, double* sums) {
    add_terms(g, n, lane, sums, [unit](auto& x) {
        x *= unit;
        x *= x;
    });
}

template <class T>
void squares_of(const Block& block, std::size_t begin, std::size_t end, double unit, std::size_t lane, double* sums) {
    if (block.g.type == native<T> && !block.g.view)
        return add_squares(static_cast<const T*>(block.g.data) + begin, end - begin, unit, lane, sums);
    T numbers[tile];
    for (std::size_t start = begin; start < end; start += tile) {
        const std::size_t n = end - start < tile ? end - start : tile;
        load(block.g, start, n, numbers);
        add_squares(numbers, n, unit, (lane + start - begin) % sum_lanes, sums);
    }
}

inline void squares(const Block& block, std::size_t begin, std::size_t end, double unit, std::size_t lane,
                    double* sums) {
    (block.g.type == Type::float64 ? squares_of<double> : squares_of<float>)(block, begin, end, unit, lane, sums);
}

}  // namespace adamas::ADAMAS_ISA
