// The q8 format of state, twin of src/adamas/_q8.py, which says what it is: a byte per element, and one for the scale
// of each block. A tile is a block, so the rules see numbers and know none of this.
#pragma once

#include "rules.hpp"
#include "tiles.hpp"

namespace adamas::ADAMAS_ISA {

static_assert(tile == block_size, "a tile is a block");

// What is kept of a state array, of which each element has a byte and each block one more, behind them.
struct Q8 {
    std::uint8_t *codes, *scales;

    Q8(void* data, std::size_t size) : codes(static_cast<std::uint8_t*>(data)), scales(codes + size) {}
};

// The bits of what is added to the magnitudes of a block of this scale: 2^-15 of it.
inline std::uint32_t zero_point(std::uint32_t scale) {
    return ((scale > 19 ? scale : 19) - 15) << 23;
}

// The bits of the least number of a block of this scale that is never negative.
inline std::uint32_t floor_of(std::uint32_t scale) {
    return scale > 0 ? (scale - 31) << 23 : 0;
}

// The loops are the same for all rules, and so compiled once.

template <bool nonnegative>
[[gnu::noinline]] void decode(const std::uint8_t* codes, std::uint32_t scale, std::size_t n, float* to) {
    const std::uint32_t zero = nonnegative ? floor_of(scale) : zero_point(scale);
    const float offset = from_bits(zero);
    ADAMAS_INDEPENDENT
    for (std::size_t k = 0; k < n; ++k) {
        const std::uint32_t code = codes[k];
        if constexpr (nonnegative) {
            to[k] = from_bits((code << 20) + zero);
        } else {
            const float magnitude = from_bits(((code & 0x7f) << 20) + zero) - offset;
            to[k] = from_bits(to_bits(magnitude) | (code & 0x80) << 24);
        }
    }
}

// The largest bits of magnitudes that the largest scale, 254, has room for.
template <bool nonnegative>
constexpr std::uint32_t most_bits = nonnegative ? 0x7f700000u : 0x7f6fff00u;

// Replaces what the format has no room for: see `encode` in _q8.py.
template <bool nonnegative>
void make_room(std::size_t n, float* x) {
    const float most = from_bits(most_bits<nonnegative>);
    for (std::size_t k = 0; k < n; ++k) {
        if constexpr (nonnegative) {
            x[k] = x[k] > 0 ? (x[k] < most ? x[k] : most) : 0.0f;
        } else {
            x[k] = (to_bits(x[k]) & 0x7fffffffu) < 0x7f800000u ? clamp(x[k], most) : 0.0f;
        }
    }
}

template <bool nonnegative>
std::uint32_t largest_bits(std::size_t n, const float* x) {
    constexpr std::uint32_t mask = nonnegative ? 0xffffffffu : 0x7fffffffu;
    std::uint32_t largest = 0;
    for (std::size_t k = 0; k < n; ++k) {
        const std::uint32_t bits = to_bits(x[k]) & mask;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

// Writes a block and returns its scale. random: of the first element, and by how much that of each next one differs.
template <bool nonnegative>
[[gnu::noinline]] std::uint8_t encode(std::size_t n, float* x, std::uint32_t random, std::uint32_t stride,
                                      std::uint8_t* codes) {
    std::uint32_t most = largest_bits<nonnegative>(n, x);
    if (most > most_bits<nonnegative>) {
        make_room<nonnegative>(n, x);
        most = largest_bits<nonnegative>(n, x);
    }
    constexpr std::uint32_t headroom = nonnegative ? 0xfffffu : 0x1000ffu, least = nonnegative ? 32 : 19;
    const std::uint32_t fitting = (most + headroom) >> 23;
    const std::uint32_t scale = nonnegative && most == 0 ? 0 : fitting > least ? fitting : least;
    const std::uint32_t zero = nonnegative ? floor_of(scale) : zero_point(scale);
    const float offset = from_bits(zero);
    std::uint32_t wide[block_size];  // narrowed in a loop of its own: 1.2x
    for (std::size_t k = 0; k < n; ++k, random += stride) {
        const std::uint32_t bits = to_bits(x[k]), rounding = random >> 12;
        if constexpr (nonnegative) {
            const std::int32_t code = static_cast<std::int32_t>(bits - zero + rounding) >> 20;
            wide[k] = static_cast<std::uint32_t>(code > 0 ? code : 0);
        } else {
            const std::uint32_t shifted = to_bits(from_bits(bits & 0x7fffffffu) + offset);
            wide[k] = (shifted - zero + rounding) >> 20 | (bits >> 24 & 0x80);
        }
    }
    ADAMAS_INDEPENDENT
    for (std::size_t k = 0; k < n; ++k) codes[k] = static_cast<std::uint8_t>(wide[k]);
    return static_cast<std::uint8_t>(scale);
}

// Reads elements begin to begin + n, of one block.
template <bool nonnegative>
void load(const Q8& from, std::size_t begin, std::size_t n, float* to) {
    decode<nonnegative>(from.codes + begin, from.scales[begin / block_size], n, to);
}

// Writes them, rounded at random; what there is no room for in `x` is replaced.
template <bool nonnegative>
void store(float* x, const Q8& to, std::size_t begin, std::size_t n, const Dice& dice) {
    const auto [first, stride] = dice.block(begin);
    to.scales[begin / block_size] = encode<nonnegative>(n, x, first, stride, to.codes + begin);
}

}  // namespace adamas::ADAMAS_ISA
