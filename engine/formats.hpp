// The formats that numbers are stored in, twins of src/adamas/_formats.py: how each is read and written. Rules compute
// in float or double and know none of this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "engine.hpp"
#include "wide.hpp"

// The iterations of the loop that follows do not depend on each other.
#ifdef __clang__
#define ADAMAS_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define ADAMAS_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace adamas::ADAMAS_ISA {

struct BFloat16 {
    std::uint16_t bits;
};
struct Float16 {
    std::uint16_t bits;
};

// The format that a type of the arithmetic is stored in as it is.
template <class T>
constexpr Type native = sizeof(T) == sizeof(double) ? Type::float64 : Type::float32;

inline std::uint32_t to_bits(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float from_bits(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// --- reading: exact --------------------------------------------------------------------------------------------------

inline double widen(double x) {
    return x;
}
inline float widen(float x) {
    return x;
}
inline float widen(BFloat16 x) {
    return from_bits(std::uint32_t{x.bits} << 16);
}
inline float widen(Float16 x) {
    const std::uint32_t magnitude = x.bits & 0x7fffu, sign = (x.bits & 0x8000u) << 16;
    const std::uint32_t normal = (magnitude << 13) + (112u << 23), special = (magnitude << 13) | 0x7f800000u;
    // Not by a shift and a product, the usual way: that reads a denormal float, which counts as zero here.
    const std::uint32_t denormal = to_bits(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f);
    return from_bits(sign | (magnitude >= 0x7c00u ? special : magnitude < 0x400u ? denormal : normal));
}

// Reads as many numbers as are wide, or `count` of them: the others are 0.
template <class Count = All>
[[gnu::always_inline]] inline Wide<float> read_wide(const BFloat16* from, Count count = {}) {
    return from_bits(read_short(&from->bits, count) << 16);
}
[[gnu::always_inline]] inline Wide<float> read_wide(const Float16* from, All = {}) {
#ifdef __AVX512F__
    return _mm512_maskz_cvtph_ps(0xFFFF, read_as<__m256i>(from));
#elif defined __F16C__
    return _mm256_cvtph_ps(read_as<__m128i>(from));
#else
    Wide<float> x;
    for (std::size_t i = 0; i < width<float>; ++i) x[i] = widen(from[i]);
    return x;
#endif
}
[[gnu::always_inline]] inline Wide<float> read_wide(const Float16* from, std::size_t count) {
    Float16 some[width<float>] = {};
    std::memcpy(some, from, count * sizeof *from);
    return read_wide(some);
}

template <class S, class T>
void widen_all(const S* from, std::size_t n, T* to) {
    std::size_t k = 0;
    if constexpr (sizeof(S) == 2 && std::is_same_v<T, float>)
        for (; n - k >= width<float>; k += width<float>) write_to(to + k, read_wide(from + k));
    for (; k < n; ++k) to[k] = static_cast<T>(widen(from[k]));
}

// --- writing ---------------------------------------------------------------------------------------------------------

// Adds `increment`, below 2^16, to the bits of a finite number and drops the last 16. What is finite stays so if it
// saturates, as the state must: the largest number of bfloat16 is below that of float.
template <bool saturates>
BFloat16 round_to_bfloat16(float x, std::uint32_t increment) {
    const std::uint32_t bits = to_bits(x), magnitude = bits & 0x7fffffffu;
    std::uint32_t rounded = (bits + increment) >> 16;
    if constexpr (saturates) rounded -= (rounded & 0x7fffu) == 0x7f80u ? 1 : 0;
    const std::uint32_t special = magnitude > 0x7f800000u ? 0x7fc0u : bits >> 16;
    return {static_cast<std::uint16_t>(magnitude >= 0x7f800000u ? special : rounded)};
}

template <bool saturates>
Bits round_to_bfloat16(Wide<float> x, Bits increment) {
    const Bits bits = to_bits(x), magnitude = bits & 0x7fffffffu;
    Bits rounded = (bits + increment) >> 16;
    if (!any_at_least(magnitude, 0x7f7f0000u)) [[likely]]
        return rounded;
    if constexpr (saturates) rounded -= (rounded & 0x7fffu) == 0x7f80u ? Bits{} + 1 : Bits{};
    const Bits special = magnitude > 0x7f800000u ? Bits{} + 0x7fc0u : bits >> 16;
    return magnitude >= 0x7f800000u ? special : rounded;
}

// The increment that rounds to the nearest, ties to even. The mean of random ones, uniform, makes the result exact on
// average.
template <class N>
auto nearest(N x) {
    return 0x7fffu + ((to_bits(x) >> 16) & 1);
}

template <class S>
S narrow(float x);
template <>
inline double narrow<double>(float x) {
    return x;
}
template <>
inline float narrow<float>(float x) {
    return x;
}
template <>
inline BFloat16 narrow<BFloat16>(float x) {
    return round_to_bfloat16<false>(x, nearest(x));
}
template <>
inline Float16 narrow<Float16>(float x) {
    const std::uint32_t bits = to_bits(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    const std::uint32_t denormal = to_bits(from_bits(magnitude) + 0.5f) - to_bits(0.5f);  // the sum rounds
    const std::uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const std::uint32_t half = magnitude >= (143u << 23) ? special : magnitude < (113u << 23) ? denormal : normal;
    return {static_cast<std::uint16_t>(sign | half)};
}

template <class S>
S narrow(double x) {
    if constexpr (sizeof(S) == 2) {
        return narrow<S>(static_cast<float>(x));
    } else {
        return static_cast<S>(x);
    }
}

// Writes numbers in float16, as many as are wide, or `count` of them. NaN become the one that narrow makes.
[[gnu::always_inline]] inline void write_wide(Float16* to, Wide<float> x, All = {}) {
#ifdef __AVX512F__
    const __m256i half = _mm512_maskz_cvtps_ph(0xFFFF, x, _MM_FROUND_TO_NEAREST_INT);
    const __m256i special = (half & _mm256_set1_epi16(static_cast<short>(0x8000))) | _mm256_set1_epi16(0x7e00);
    write_to(to, _mm256_mask_blend_epi16(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), half, special));
#elif defined __F16C__
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m128i half = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    const __m128i sign = _mm_and_si128(half, _mm_set1_epi16(static_cast<short>(0x8000)));
    const __m128i special = _mm_or_si128(sign, _mm_set1_epi16(0x7e00));
    const __m128i mask = _mm_packs_epi32(_mm256_castsi256_si128(nan), _mm256_extracti128_si256(nan, 1));
    write_to(to, _mm_blendv_epi8(half, special, mask));
#else
    for (std::size_t i = 0; i < width<float>; ++i) to[i] = narrow<Float16>(x[i]);
#endif
}
[[gnu::always_inline]] inline void write_wide(Float16* to, Wide<float> x, std::size_t count) {
    Float16 some[width<float>];
    write_wide(some, x);
    std::memcpy(to, some, count * sizeof *to);
}

// --- random numbers --------------------------------------------------------------------------------------------------

// Random numbers of 32 bits, of which the upper ones are to be used: each differs from the one before by the same.
class Randoms {
public:
    Randoms(std::uint32_t first, std::uint32_t stride)
        : first_(first), stride_(stride), steps_(counted(std::make_index_sequence<width<float>>{}) * stride) {}

    // That of element k, or of as many as there are bits from there on.
    template <class B>
    [[gnu::always_inline]] B at(std::size_t k) const {
        const std::uint32_t here = first_ + static_cast<std::uint32_t>(k) * stride_;
        if constexpr (std::is_same_v<B, Bits>) {
            return steps_ + here;
        } else {
            return here;
        }
    }

private:
    template <std::size_t... i>
    static Bits counted(std::index_sequence<i...>) {
        return Bits{i...};
    }

    std::uint32_t first_, stride_;
    Bits steps_;
};

// Those of a block in order, as many at a time as are wide.
class Deal {
public:
    Deal(const Randoms& randoms) : next_(randoms.at<Bits>(0)), step_(randoms.at<Bits>(width<float>) - next_) {}

    [[gnu::always_inline]] Bits operator()() {
        const Bits dealt = next_;
        next_ += step_;
        return dealt;
    }

private:
    Bits next_, step_;
};

// The random numbers of the elements of one array in one step: multiply-shift within a block, pairwise independent.
class Dice {
public:
    // first: the number of the array's first block.
    Dice(std::uint64_t key, std::uint64_t first, std::uint64_t role) : key_(mix64(key ^ role)), first_(first) {}

    // Those of the elements of a block from `begin` on, the number of an element.
    Randoms block(std::size_t begin) const {
        const std::uint64_t hash = mix64(key_ + (first_ + begin / block_size) * 0xD1B54A32D192ED03u);
        const auto high = static_cast<std::uint32_t>(hash >> 32), low = static_cast<std::uint32_t>(hash);
        return {high + static_cast<std::uint32_t>(begin % block_size) * low, low};
    }

    // Calls part(i, n, randoms) for each run of elements i to i + n of `count`, the first of which is element `begin`
    // of the array, that share a hash.
    template <class Part>
    void cast(std::size_t begin, std::size_t count, const Part& part) const {
        for (std::size_t i = 0; i < count;) {
            const std::size_t left = block_size - (begin + i) % block_size, n = count - i < left ? count - i : left;
            part(i, n, block(begin + i));
            i += n;
        }
    }

private:
    std::uint64_t key_, first_;
};

}  // namespace adamas::ADAMAS_ISA
