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

// The least of a block with this scale, as bits: what is added to all of its numbers, or to their magnitudes.
template <bool nonnegative>
std::uint32_t zero_of(std::uint32_t scale) {
    return nonnegative ? floor_of(scale) : zero_point(scale);
}

// The numbers of codes of a block, whose zero_of is `zero`.
template <bool nonnegative>
[[gnu::always_inline]] inline Wide<float> decode(Bits code, std::uint32_t zero) {
    if constexpr (nonnegative) {
        return from_bits((code << 20) + zero);
    } else {
        const Wide<float> magnitude = from_bits(((code & 0x7f) << 20) + zero) - from_bits(zero);
        return from_bits(to_bits(magnitude) | (code << 24 & 0x80000000u));
    }
}

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

// Returns the scale of a block, of whose magnitudes these are the largest bits.
template <bool nonnegative>
std::uint32_t scale_for(std::uint32_t most) {
    constexpr std::uint32_t headroom = nonnegative ? 0xfffffu : 0x1000ffu, least = nonnegative ? 32 : 19;
    const std::uint32_t fitting = (most + headroom) >> 23;
    return nonnegative && most == 0 ? 0 : fitting > least ? fitting : least;
}

// The same, when what there is no room for has been replaced.
template <bool nonnegative>
[[gnu::noinline]] std::uint32_t fit(float* x) {
    std::uint32_t most = largest_bits<nonnegative>(x);
    if (most > most_bits<nonnegative>) {
        make_room<nonnegative>(block_size, x);
        most = largest_bits<nonnegative>(x);
    }
    return scale_for<nonnegative>(most);
}

// Makes the codes of a block whose scale is known, as many in each call as are wide.
template <bool nonnegative>
class Encoder {
public:
    Encoder(std::uint32_t scale, Deal deal) : zero_(Bits{} + zero_of<nonnegative>(scale)), deal_(deal) {}

    [[gnu::always_inline]] void next(const float* from, std::uint8_t* to) {
        const Bits bits = read_as<Bits>(from), rounding = (deal_() >> 12) - zero_;
        if constexpr (nonnegative) {
            const auto sum = reinterpret_cast<Wide<std::int32_t>>(bits + rounding);
            write_short(to, reinterpret_cast<Bits>(sum > 0 ? sum : 0) >> 20);
        } else {
            const Bits shifted = to_bits(from_bits(bits & 0x7fffffffu) + from_bits(zero_));
            write_short(to, (shifted + rounding) >> 20 | (bits >> 24 & 0x80));
        }
    }

private:
    Bits zero_;
    Deal deal_;
};

template <bool nonnegative>
[[gnu::noinline]] void encode(const float* from, std::uint32_t scale, Deal deal, std::uint8_t* to) {
    Encoder<nonnegative> encoder(scale, deal);
    for (std::size_t k = 0; k < block_size; k += width<float>) encoder.next(from + k, to + k);
}

// Reads elements begin to begin + n, of one block.
template <bool nonnegative>
[[gnu::noinline]] void load(Q8 from, std::size_t begin, std::size_t n, float* to) {
    const std::uint32_t zero = zero_of<nonnegative>(from.scales[begin / block_size]);
    each_wide<float>(n, [&](auto, std::size_t k, auto count) {
        write_to(to + k, decode<nonnegative>(read_short(from.codes + begin + k, count), zero), count);
    });
}

// Writes them, rounded at random. x has room for a whole block: what there is no room for in the format is replaced,
// and what is beyond the elements.
template <bool nonnegative>
[[gnu::noinline]] void store(float* x, Q8 to, std::size_t begin, std::size_t n, Dice dice) {
    std::uint8_t codes[block_size];
    std::memset(x + n, 0, (block_size - n) * sizeof(float));
    const std::uint32_t scale = fit<nonnegative>(x);
    encode<nonnegative>(x, scale, dice.block(begin), codes);
    to.scales[begin / block_size] = static_cast<std::uint8_t>(scale);
    std::memcpy(to.codes + begin, codes, n);
}

// Room for the numbers of two blocks of a state array, which take turns, and for codes that nobody needs.
struct Coding {
    alignas(wide_bytes) float numbers[2 * block_size] = {};
    std::uint8_t unused[block_size];
};

// A state array as it is stored, which the loop of a rule reads and changes block by block. While it steps one it makes
// the codes of the one before, whose scale is known by then: the units that divide and take roots are busy meanwhile.
template <bool nonnegative>
class Coded {
public:
    static constexpr bool asks_ahead = true;  // arithmetic takes about as long as memory: elsewhere this costs

    Coded(Q8 array, Dice dice, Coding& room)
        : array_(array), dice_(dice), numbers_(room.numbers), unused_(room.unused) {}

    void open(std::size_t start, std::size_t n) {
        if (n < block_size) finish();  // its loop is too short
        codes_ = array_.codes + start;
        zero_ = zero_of<nonnegative>(array_.scales[start / block_size]);
        deal_ = dice_.block(start);
        now_ = start % (2 * block_size);
    }

    template <class N, class Count = All>
    [[gnu::always_inline]] N read(std::size_t k, Count count = {}) const {
        return decode<nonnegative>(read_short(codes_ + k, count), zero_);
    }

    template <class N, class Count = All>
    [[gnu::always_inline]] void write(std::size_t k, const N& x, Count count = {}) {
        write_to(numbers_ + now_ + k, x, count);
        if constexpr (std::is_same_v<Count, All>) {
            const Bits bits = to_bits(x) & magnitude;
            most_ = bits > most_ ? bits : most_;
            encoder_.next(numbers_ + (block_size - now_) + k, before_ + k);
        }
    }

    void close(std::size_t start, std::size_t n) {
        float* const numbers = numbers_ + now_;
        if (n < block_size) return store<nonnegative>(numbers, array_, start, n, dice_);
        const std::uint32_t most = largest_of(most_);
        scale_ = most > most_bits<nonnegative> ? fit<nonnegative>(numbers) : scale_for<nonnegative>(most);
        array_.scales[start / block_size] = static_cast<std::uint8_t>(scale_);
        encoder_ = {scale_, deal_};
        before_ = codes_;
        most_ = Bits{};
    }

    // Makes the codes that are still to be made.
    void finish() {
        if (before_ != unused_) encode<nonnegative>(numbers_ + now_, scale_, deal_, before_);
        before_ = unused_;
    }

private:
    static constexpr std::uint32_t magnitude = nonnegative ? 0xffffffffu : 0x7fffffffu;

    Q8 array_;
    Dice dice_;
    float* numbers_;
    std::uint8_t *unused_, *codes_ = nullptr, *before_ = unused_;
    std::uint32_t zero_ = 0, scale_ = 0;
    std::size_t now_ = 0;
    Deal deal_{Randoms(0, 0)};
    Bits most_{};
    Encoder<nonnegative> encoder_{0, deal_};
};

}  // namespace adamas::ADAMAS_ISA
