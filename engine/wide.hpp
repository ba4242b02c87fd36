// Numbers side by side: as many as one instruction of the instruction set takes. The rules are written once, for a
// number; with a Wide in its place they are what GCC would have to make of a loop of them, at which it is worse: it
// takes as many as there are of the narrowest type in the widest register, and runs out of registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined __x86_64__
#include <immintrin.h>
#endif

#ifndef ADAMAS_ISA
#error "compile once per instruction set, with ADAMAS_ISA naming its namespace"
#endif

namespace adamas::ADAMAS_ISA {

#ifdef __AVX512F__
constexpr std::size_t wide_bytes = 64;
#elif defined __AVX__
constexpr std::size_t wide_bytes = 32;
#else
constexpr std::size_t wide_bytes = 16;
#endif

template <class T>
constexpr std::size_t width = wide_bytes / sizeof(T);

template <class T, std::size_t count>
struct Vector {
    typedef T type __attribute__((vector_size(count * sizeof(T))));
};
template <class T>
using Wide = typename Vector<T, width<T>>::type;

// The type of one number of T, which may be wide.
template <class T>
struct OneOf {
    using type = T;
};
template <>
struct OneOf<Wide<float>> {
    using type = float;
};
template <>
struct OneOf<Wide<double>> {
    using type = double;
};
template <class T>
using One = typename OneOf<T>::type;

template <class T>
constexpr bool is_wide = !std::is_same_v<T, One<T>>;

// As many numbers as there are in T, all x.
template <class T>
[[gnu::always_inline]] inline T all(One<T> x) {
    return T{} + x;
}

template <class T>
[[gnu::always_inline]] inline T largest() {
    return all<T>(std::numeric_limits<One<T>>::max());
}
template <class T>
[[gnu::always_inline]] inline T infinity() {
    return all<T>(std::numeric_limits<One<T>>::infinity());
}

// As many numbers as there are in N; where instead a number says how many of them, the others are 0 and not touched.
struct All {};

// Reads numbers, and writes them.
template <class N, class T>
[[gnu::always_inline]] inline N read_as(const T* from, All = {}) {
    static_assert(sizeof(N) % sizeof(T) == 0);
    N x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
template <class N, class T>
[[gnu::always_inline]] inline void write_to(T* to, const N& x, All = {}) {
    std::memcpy(to, &x, sizeof x);
}
#ifdef __AVX512F__
[[gnu::always_inline]] inline std::uint32_t mask_of(std::size_t count) {
    return (1u << count) - 1;
}
template <class N>
[[gnu::always_inline]] inline N read_as(const float* from, std::size_t count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask_of(count)), from);
}
template <class N>
[[gnu::always_inline]] inline N read_as(const double* from, std::size_t count) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask_of(count)), from);
}
[[gnu::always_inline]] inline void write_to(float* to, Wide<float> x, std::size_t count) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask_of(count)), x);
}
[[gnu::always_inline]] inline void write_to(double* to, Wide<double> x, std::size_t count) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask_of(count)), x);
}
#else
template <class N, class T>
[[gnu::always_inline]] inline N read_as(const T* from, std::size_t count) {
    N x{};
    for (std::size_t i = 0; i < count; ++i) x[i] = from[i];
    return x;
}
template <class N, class T>
[[gnu::always_inline]] inline void write_to(T* to, const N& x, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) to[i] = x[i];
}
#endif

// A condition that is asked for again and again: the compiler would sooner repeat, in each iteration of a loop, the
// comparison of numbers that it came from.
class Condition {
public:
    Condition(bool holds) : holds_(holds) { __asm__("" : "+r"(holds_)); }
    operator bool() const { return holds_; }

private:
    bool holds_;
};

// Returns what is for a number, or for as many as are wide.
template <class N, class A, class B>
[[gnu::always_inline]] inline const auto& pick(const A& one, const B& many) {
    if constexpr (is_wide<N>) {
        return many;
    } else {
        return one;
    }
}

// Calls visit(Wide<T>{}, k, place) for elements 0 to n - 1, in groups, of which n is a multiple. place: which of its
// group, a std::integral_constant.
template <class T, class Visit, std::size_t... i>
[[gnu::always_inline]] inline void each_in_groups(std::size_t n, const Visit& visit, std::index_sequence<i...>) {
    for (std::size_t k = 0; k < n; k += sizeof...(i) * width<T>)
        (visit(Wide<T>{}, k + i * width<T>, std::integral_constant<std::size_t, i>{}), ...);
}
template <class T, std::size_t group, class Visit>
[[gnu::always_inline]] inline void each_in_groups(std::size_t n, const Visit& visit) {
    each_in_groups<T>(n, visit, std::make_index_sequence<group / width<T>>{});
}

// Calls visit(N{}, k) for elements 0 to n - 1: for as many as are wide, else for one.
template <class T, class Visit>
[[gnu::always_inline]] inline void each(std::size_t n, const Visit& visit) {
    std::size_t k = 0;
    for (; n - k >= width<T>; k += width<T>) visit(Wide<T>{}, k);
    for (; k < n; ++k) visit(T{}, k);
}

// Calls visit(Wide<T>{}, k, count) for elements 0 to n - 1: as many as are wide, and at last how many are left.
template <class T, class Visit>
[[gnu::always_inline]] inline void each_wide(std::size_t n, const Visit& visit) {
    std::size_t k = 0;
    for (; n - k >= width<T>; k += width<T>) visit(Wide<T>{}, k, All{});
    if (k < n) visit(Wide<T>{}, k, n - k);
}

inline float sqrt(float x) {
    return __builtin_sqrtf(x);
}
inline double sqrt(double x) {
    return __builtin_sqrt(x);
}
#ifdef __AVX512F__  // masked, as GCC 12 warns of the plain forms
inline Wide<float> sqrt(Wide<float> x) {
    return _mm512_maskz_sqrt_ps(0xFFFF, x);
}
inline Wide<double> sqrt(Wide<double> x) {
    return _mm512_maskz_sqrt_pd(0xFF, x);
}
#elif defined __AVX__
inline Wide<float> sqrt(Wide<float> x) {
    return _mm256_sqrt_ps(x);
}
inline Wide<double> sqrt(Wide<double> x) {
    return _mm256_sqrt_pd(x);
}
#else
inline Wide<float> sqrt(Wide<float> x) {
    for (std::size_t i = 0; i < width<float>; ++i) x[i] = sqrt(x[i]);
    return x;
}
inline Wide<double> sqrt(Wide<double> x) {
    for (std::size_t i = 0; i < width<double>; ++i) x[i] = sqrt(x[i]);
    return x;
}
#endif

// Return the lesser and the greater of two numbers; b if one is NaN.
inline float lesser(float a, float b) {
    return a < b ? a : b;
}
inline double lesser(double a, double b) {
    return a < b ? a : b;
}
inline float greater(float a, float b) {
    return a > b ? a : b;
}
inline double greater(double a, double b) {
    return a > b ? a : b;
}
#ifdef __AVX512F__
inline Wide<float> lesser(Wide<float> a, Wide<float> b) {
    return _mm512_maskz_min_ps(0xFFFF, a, b);
}
inline Wide<double> lesser(Wide<double> a, Wide<double> b) {
    return _mm512_maskz_min_pd(0xFF, a, b);
}
inline Wide<float> greater(Wide<float> a, Wide<float> b) {
    return _mm512_maskz_max_ps(0xFFFF, a, b);
}
inline Wide<double> greater(Wide<double> a, Wide<double> b) {
    return _mm512_maskz_max_pd(0xFF, a, b);
}
#elif defined __AVX__
inline Wide<float> lesser(Wide<float> a, Wide<float> b) {
    return _mm256_min_ps(a, b);
}
inline Wide<double> lesser(Wide<double> a, Wide<double> b) {
    return _mm256_min_pd(a, b);
}
inline Wide<float> greater(Wide<float> a, Wide<float> b) {
    return _mm256_max_ps(a, b);
}
inline Wide<double> greater(Wide<double> a, Wide<double> b) {
    return _mm256_max_pd(a, b);
}
#else
template <class T>
T lesser(T a, T b) {
    return a < b ? a : b;
}
template <class T>
T greater(T a, T b) {
    return a > b ? a : b;
}
#endif

inline float abs(float x) {
    return __builtin_fabsf(x);
}
inline double abs(double x) {
    return __builtin_fabs(x);
}
inline Wide<float> abs(Wide<float> x) {
    return reinterpret_cast<Wide<float>>(reinterpret_cast<Wide<std::uint32_t>>(x) & 0x7fffffffu);
}
inline Wide<double> abs(Wide<double> x) {
    return reinterpret_cast<Wide<double>>(reinterpret_cast<Wide<std::uint64_t>>(x) & 0x7fffffffffffffffu);
}

// The bits of numbers of 32 bits, and the numbers of bits.
using Bits = Wide<std::uint32_t>;
[[gnu::always_inline]] inline Bits to_bits(Wide<float> x) {
    return reinterpret_cast<Bits>(x);
}
[[gnu::always_inline]] inline Wide<float> from_bits(Bits bits) {
    return reinterpret_cast<Wide<float>>(bits);
}

// Whether a bit of any of them is set.
template <class V>
[[gnu::always_inline]] inline bool any_set(V x) {
#ifdef __AVX512F__
    const auto all = reinterpret_cast<__m512i>(x);
    return _mm512_test_epi32_mask(all, all) != 0;
#elif defined __AVX__
    const auto all = reinterpret_cast<__m256i>(x);
    return !_mm256_testz_si256(all, all);
#else
    const auto all = reinterpret_cast<Vector<std::uint64_t, 2>::type>(x);
    return (all[0] | all[1]) != 0;
#endif
}

// Whether one of them, all below 2^31, is at least a bound.
[[gnu::always_inline]] inline bool any_at_least(Bits x, std::uint32_t bound) {
#ifdef __AVX512F__
    return _mm512_cmpge_epu32_mask(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(Bits{} + bound)) != 0;
#else
    return any_set((x + (0x80000000u - bound)) & 0x80000000u);
#endif
}

// Reads as many short numbers as there are bits in a Bits, and writes what fits into them. By hand: GCC 12 takes the
// plain forms number by number.
[[gnu::always_inline]] inline Bits read_short(const std::uint8_t* from, All = {}) {
#ifdef __AVX512F__
    return reinterpret_cast<Bits>(_mm512_maskz_cvtepu8_epi32(0xFFFF, read_as<__m128i>(from)));
#elif defined __AVX2__
    return reinterpret_cast<Bits>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    Bits x;
    for (std::size_t i = 0; i < width<float>; ++i) x[i] = from[i];
    return x;
#endif
}
[[gnu::always_inline]] inline Bits read_short(const std::uint16_t* from, All = {}) {
#ifdef __AVX512F__
    return reinterpret_cast<Bits>(_mm512_maskz_cvtepu16_epi32(0xFFFF, read_as<__m256i>(from)));
#elif defined __AVX2__
    return reinterpret_cast<Bits>(_mm256_cvtepu16_epi32(read_as<__m128i>(from)));
#else
    Bits x;
    for (std::size_t i = 0; i < width<float>; ++i) x[i] = from[i];
    return x;
#endif
}
#ifdef __AVX512F__
[[gnu::always_inline]] inline Bits read_short(const std::uint8_t* from, std::size_t count) {
    const __m128i x = _mm_maskz_loadu_epi8(static_cast<__mmask16>(mask_of(count)), from);
    return reinterpret_cast<Bits>(_mm512_maskz_cvtepu8_epi32(0xFFFF, x));
}
[[gnu::always_inline]] inline Bits read_short(const std::uint16_t* from, std::size_t count) {
    const __m256i x = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask_of(count)), from);
    return reinterpret_cast<Bits>(_mm512_maskz_cvtepu16_epi32(0xFFFF, x));
}
#else
template <class S>
[[gnu::always_inline]] inline Bits read_short(const S* from, std::size_t count) {
    Bits x{};
    for (std::size_t i = 0; i < count; ++i) x[i] = from[i];
    return x;
}
#endif
[[gnu::always_inline]] inline void write_short(std::uint8_t* to, Bits x) {
#ifdef __AVX512F__
    const __m128i narrow = _mm512_maskz_cvtepi32_epi8(0xFFFF, reinterpret_cast<__m512i>(x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow);
#elif defined __AVX2__
    const __m256i both = reinterpret_cast<__m256i>(x);
    const __m128i pairs = _mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(pairs, pairs));
#else
    for (std::size_t i = 0; i < width<float>; ++i) to[i] = static_cast<std::uint8_t>(x[i]);
#endif
}
[[gnu::always_inline]] inline void write_short(std::uint16_t* to, Bits x, All = {}) {
#ifdef __AVX512F__
    const __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xFFFF, reinterpret_cast<__m512i>(x));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow);
#elif defined __AVX2__
    const __m256i both = reinterpret_cast<__m256i>(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
#else
    for (std::size_t i = 0; i < width<float>; ++i) to[i] = static_cast<std::uint16_t>(x[i]);
#endif
}

[[gnu::always_inline]] inline void write_short(std::uint16_t* to, Bits x, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<std::uint16_t>(x[i]);
}

}  // namespace adamas::ADAMAS_ISA
