// Sums of squares whose bits depend neither on threads nor on how the numbers are cut into arrays.
#pragma once

#ifdef __AVX__
#include <immintrin.h>
#endif

#include "tiles.hpp"

namespace adamas::ADAMAS_ISA {

#ifdef __AVX512F__
constexpr std::size_t part_size = 8;
#else
constexpr std::size_t part_size = 4;
#endif
typedef double Part __attribute__((vector_size(part_size * sizeof(double))));

// Reads a number, or as many as a Part has, as float64.
template <class T>
void read(const T* from, double& to) {
    to = *from;
}
inline void read(const double* from, Part& to) {
    std::memcpy(&to, from, sizeof to);
}
inline void read(const float* from, Part& to) {  // by hand: GCC 12 converts two at a time, and warns of the plain form
#ifdef __AVX512F__
    to = _mm512_maskz_cvtps_pd(0xFF, _mm256_loadu_ps(from));
#elif defined __AVX__
    to = _mm256_cvtps_pd(_mm_loadu_ps(from));
#else
    for (std::size_t i = 0; i < part_size; ++i) to[i] = from[i];
#endif
}

// Adds the square of x, which is a number of type T.
template <class T, class N>
void add_square(N& sum, const N& x) {
#ifdef __FMA__
    if constexpr (std::is_same_v<T, float> && std::is_same_v<N, Part>) {  // their squares are exact in float64
#ifdef __AVX512F__
        sum = _mm512_fmadd_pd(x, x, sum);
#else
        sum = _mm256_fmadd_pd(x, x, sum);
#endif
        return;
    }
#endif
    sum += x * x;
}

// Calls add(sum, i) to add what there is of element i < n to partial sum (lane + i) % sum_lanes, a double, or of
// element i and those that follow to a Part of such sums.
template <class Add>
void add_terms(std::size_t n, std::size_t lane, double* sums, const Add& add) {
    std::size_t i = 0;
    const auto one_by_one = [&](std::size_t end) {
        for (; i < end; ++i, lane = (lane + 1) % sum_lanes) add(sums[lane], i);
    };
    const std::size_t head = (sum_lanes - lane) % sum_lanes;
    one_by_one(head < n ? head : n);
    if (n - i >= sum_lanes) {
        Part own[sum_lanes / part_size];  // by hand, because compilers find no good way
        std::memcpy(own, sums, sizeof own);
        while (n - i >= sum_lanes) {
            for (Part& part : own) {
                add(part, i);
                i += part_size;
            }
        }
        std::memcpy(sums, own, sizeof own);
    }
    one_by_one(n);
}

template <class T>
void add_squares(const T* g, std::size_t n, double unit, std::size_t lane, double* sums) {
    if (unit == 1.0) {
        return add_terms(n, lane, sums, [g](auto& sum, std::size_t i) {
            std::remove_reference_t<decltype(sum)> x;
            read(g + i, x);
            add_square<T>(sum, x);
        });
    }
    add_terms(n, lane, sums, [g, unit](auto& sum, std::size_t i) {
        std::remove_reference_t<decltype(sum)> x;
        read(g + i, x);
        x *= unit;
        sum += x * x;
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
