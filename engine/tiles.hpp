// Tiles: a few numbers of an operand at a time, in the type of the arithmetic, while they are in the nearest cache.
#pragma once

#include <cstring>

#include "formats.hpp"

namespace adamas::ADAMAS_ISA {

// Elements. With larger tiles the processor's prefetching loses track of the streams: 1.1x slower beyond the caches.
constexpr std::size_t tile = 256;

// The same where somebody looks, which takes some time for each tile.
constexpr std::size_t long_tile = 1024;

// How many elements ahead the cache is asked for what will be needed.
constexpr std::size_t lookahead = 512;

// Calls visit with a number of the type that stores a format.
template <class Visit>
void with_type(Type type, const Visit& visit) {
    switch (type) {
        case Type::float64:
            return visit(double{});
        case Type::float32:
            return visit(float{});
        case Type::bfloat16:
            return visit(BFloat16{});
        case Type::float16:
            return visit(Float16{});
        case Type::q8:
            return;  // not numbers one by one
    }
}

// Calls row(address, stride, count) for each run along the last axis that makes up elements begin to begin + n.
template <class Row>
void rows(const View& view, std::size_t begin, std::size_t n, const Row& row) {
    if (view.axes == 0) return row(view.data, std::int64_t{0}, n);
    const std::size_t last = view.axes - 1;
    const auto length = static_cast<std::size_t>(view.shape[last]);
    const std::int64_t stride = view.strides[last];
    while (n > 0) {
        std::size_t rest = begin / length;
        const std::size_t column = begin % length;
        char* address = view.data + static_cast<std::int64_t>(column) * stride;
        for (std::size_t axis = last; axis-- > 0;) {
            const auto extent = static_cast<std::size_t>(view.shape[axis]);
            address += static_cast<std::int64_t>(rest % extent) * view.strides[axis];
            rest /= extent;
        }
        const std::size_t count = n < length - column ? n : length - column;
        row(address, stride, count);
        begin += count;
        n -= count;
    }
}

// Reads elements begin to begin + n of an operand.
template <class T>
[[gnu::noinline]] void load(const Operand& from, std::size_t begin, std::size_t n, T* to) {
    with_type(from.type, [&](auto stored) {
        using S = decltype(stored);
        if (!from.view) {
            const S* const dense = static_cast<const S*>(from.data) + begin;
            return widen_all(dense, n, to);
        }
        rows(*from.view, begin, n, [&](const char* address, std::int64_t stride, std::size_t count) {
            for (; count > 0; --count, address += stride) {
                S x;
                std::memcpy(&x, address, sizeof x);  // perhaps unaligned
                *to++ = static_cast<T>(widen(x));
            }
        });
    });
}

// Narrows n numbers to bfloat16. increment(k, x): what rounds number k, or as many from there on as x has.
template <bool saturates, class Increment>
[[gnu::always_inline]] inline void round_all(const float* from, std::size_t n, BFloat16* to,
                                             const Increment& increment) {
    std::size_t k = 0;
    for (; n - k >= width<float>; k += width<float>) {
        const auto x = read_as<Wide<float>>(from + k);
        write_short(&to[k].bits, round_to_bfloat16<saturates>(x, increment(k, x)));
    }
    for (; k < n; ++k) to[k] = round_to_bfloat16<saturates>(from[k], increment(k, from[k]));
}

// Narrows n numbers, the first of which is element `begin` of its array; to bfloat16 at random if there are dice.
template <bool saturates, class S, class T>
void narrow_all(const T* from, std::size_t begin, std::size_t n, S* to, const Dice* dice) {
    if constexpr (std::is_same_v<S, BFloat16> && std::is_same_v<T, float>) {
        if (!dice) return round_all<saturates>(from, n, to, [](std::size_t, auto x) { return nearest(x); });
        return dice->cast(begin, n, [&](std::size_t i, std::size_t count, const Randoms& randoms) {
            round_all<saturates>(from + i, count, to + i,
                                 [&](std::size_t k, auto x) { return randoms.at<decltype(to_bits(x))>(k) >> 16; });
        });
    }
    std::size_t k = 0;
    if constexpr (std::is_same_v<S, Float16> && std::is_same_v<T, float>)
        for (; n - k >= width<float>; k += width<float>) write_wide(to + k, read_as<Wide<float>>(from + k));
    for (; k < n; ++k) to[k] = narrow<S>(from[k]);
}

// Writes elements begin to begin + n of an operand.
template <bool saturates, class T>
[[gnu::noinline]] void store(const T* from, const Operand& to, std::size_t begin, std::size_t n,
                             const Dice* dice = nullptr) {
    with_type(to.type, [&](auto stored) {
        using S = decltype(stored);
        if (!to.view) return narrow_all<saturates>(from, begin, n, static_cast<S*>(to.data) + begin, dice);
        S narrowed[long_tile];
        narrow_all<saturates>(from, begin, n, narrowed, dice);
        const S* next = narrowed;
        rows(*to.view, begin, n, [&](char* address, std::int64_t stride, std::size_t count) {
            for (; count > 0; --count, address += stride) std::memcpy(address, next++, sizeof(S));
        });
    });
}

// Sets elements begin to begin + n of an operand to zero.
inline void clear(const Operand& to, std::size_t begin, std::size_t n) {
    const auto size = static_cast<std::size_t>(itemsize(to.type));
    if (!to.view) {
        std::memset(static_cast<char*>(to.data) + begin * size, 0, n * size);
        return;
    }
    rows(*to.view, begin, n, [&](char* address, std::int64_t stride, std::size_t count) {
        for (; count > 0; --count, address += stride) std::memset(address, 0, size);
    });
}

}  // namespace adamas::ADAMAS_ISA
