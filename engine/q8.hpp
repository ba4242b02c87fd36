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

// A block as it was stored, whose numbers are read and changed by the loop of the rule: they go to a tile.
template <bool nonnegative>
struct Coded {
    const std::uint8_t* codes;
    std::uint32_t zero;
    float* to;

    Coded(const Q8& from, std::size_t begin, float* to)
        : codes(from.codes + begin),
          zero((nonnegative ? floor_of : zero_point)(from.scales[begin / block_size])),
          to(to) {}

    template <class N, class Count = All>
    [[gnu::always_inline]] N read(std::size_t k, Count count = {}) const {
        if constexpr (is_wide<N>) {
            return number<N>(read_short(codes + k, count));
        } else {
            return number<N>(std::uint32_t{codes[k]});
        }
    }
    template <class N, class Count = All>
    [[gnu::always_inline]] void write(std::size_t k, const N& x, Count count = {}) const {
        write_to(to + k, x, count);
    }

private:
    template <class N, class B>
    [[gnu::always_inline]] N number(B code) const {
        if constexpr (nonnegative) {
            return from_bits((code << 20) + zero);
        } else {
            const N magnitude = from_bits(((code & 0x7f) << 20) + zero) - from_bits(zero);
            return from_bits(to_bits(magnitude) | (code & 0x80) << 24);
        }
    }
};

// The loops that follow are the same for all rules, and so compiled once.

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

// The largest of some numbers.
template <class V>
std::uint32_t largest_of(V x) {
    constexpr std::size_t half = sizeof x / sizeof(std::uint32_t) / 2;
    if constexpr (half > 1) {
        typename Vector<std::uint32_t, half>::type low, high;
        std::memcpy(&low, &x, sizeof low);
        std::memcpy(&high, reinterpret_cast<const char*>(&x) + sizeof low, sizeof high);
        return largest_of(low > high ? low : high);
    } else {
        return x[0] > x[1] ? x[0] : x[1];
    }
}

template <bool nonnegative>
std::uint32_t largest_bits(const float* x) {
    constexpr std::uint32_t mask = nonnegative ? 0xffffffffu : 0x7fffffffu;
    Bits most{}, most_too{};
    for (std::size_t k = 0; k < block_size; k += 2 * width<float>) {
        const Bits bits = read_as<Bits>(x + k) & mask, too = read_as<Bits>(x + k + width<float>) & mask;
        most = bits > most ? bits : most;
        most_too = too > most_too ? too : most_too;
    }
    return largest_of(most > most_too ? most : most_too);
}

// Writes a whole block and returns its scale.
template <bool nonnegative>
[[gnu::noinline]] std::uint8_t encode(float* x, const Randoms randoms, std::uint8_t* codes) {
    std::uint32_t most = largest_bits<nonnegative>(x);
    if (most > most_bits<nonnegative>) {
        make_room<nonnegative>(block_size, x);
        most = largest_bits<nonnegative>(x);
    }
    constexpr std::uint32_t headroom = nonnegative ? 0xfffffu : 0x1000ffu, least = nonnegative ? 32 : 19;
    const std::uint32_t fitting = (most + headroom) >> 23;
    const std::uint32_t scale = nonnegative && most == 0 ? 0 : fitting > least ? fitting : least;
    const std::uint32_t zero = nonnegative ? floor_of(scale) : zero_point(scale);
    const float offset = from_bits(zero);
    Bits random = randoms.at<Bits>(0);
    for (std::size_t k = 0; k < block_size; k += width<float>) {
        const Bits bits = read_as<Bits>(x + k), rounding = (random >> 12) - zero;
        random = randoms.after(random);
        if constexpr (nonnegative) {
            const auto code = reinterpret_cast<Wide<std::int32_t>>(bits + rounding) >> 20;
            write_short(codes + k, reinterpret_cast<Bits>(code & ~(code >> 31)));
        } else {
            const Bits shifted = to_bits(from_bits(bits & 0x7fffffffu) + offset);
            write_short(codes + k, (shifted + rounding) >> 20 | (bits >> 24 & 0x80));
        }
    }
    return static_cast<std::uint8_t>(scale);
}

// Reads elements begin to begin + n, of one block.
template <bool nonnegative>
[[gnu::noinline]] void load(const Q8& from, std::size_t begin, std::size_t n, float* to) {
    const Coded<nonnegative> block(from, begin, to);
    std::size_t k = 0;
    for (; n - k >= width<float>; k += width<float>) block.write(k, block.template read<Wide<float>>(k));
    for (; k < n; ++k) block.write(k, block.template read<float>(k));
}

// Writes them, rounded at random. x has room for a whole block: what there is no room for in the format is replaced,
// and what is beyond the elements.
template <bool nonnegative>
void store(float* x, const Q8& to, std::size_t begin, std::size_t n, const Dice& dice) {
    const Randoms randoms = dice.block(begin);
    std::uint8_t& scale = to.scales[begin / block_size];
    if (n == block_size) {
        scale = encode<nonnegative>(x, randoms, to.codes + begin);
        return;
    }
    std::uint8_t codes[block_size];
    std::memset(x + n, 0, (block_size - n) * sizeof(float));
    scale = encode<nonnegative>(x, randoms, codes);
    std::memcpy(to.codes + begin, codes, n);
}

}  // namespace adamas::ADAMAS_ISA
