// Sums in float64 whose bits depend neither on threads nor on how the numbers are cut: twin of `total` in rules.py.
#pragma once

#include "engine.hpp"
#include "wide.hpp"

namespace adamas::ADAMAS_ISA {

// The numbers of the lower or the upper half of x.
template <std::size_t half>
[[gnu::always_inline]] inline Wide<double> half_of(Wide<float> x) {
    return [&]<std::size_t... i>(std::index_sequence<i...>) -> Wide<double> {
        const auto part = __builtin_shufflevector(x, x, (half * width<double> + i)...);
#ifdef __AVX512F__  // by hand: GCC 12 converts two at a time, and warns of the plain form
        return _mm512_maskz_cvtps_pd(0xFF, part);
#elif defined __AVX__
        return _mm256_cvtps_pd(part);
#else
        return Wide<double>{part[i]...};
#endif
    }(std::make_index_sequence<width<double>>{});
}

// Partial sums in float64, element k in that of k % sum_lanes. They live in registers while a loop adds to them group
// by group: what a wide operand is added to is its place in the group.
class Lanes {
public:
    template <std::size_t place>
    using Place = std::integral_constant<std::size_t, place>;

    Lanes() = default;
    explicit Lanes(const double* from) { std::memcpy(lanes_, from, sizeof lanes_); }
    void copy_to(double* to) const { std::memcpy(to, lanes_, sizeof lanes_); }

    // Adds x * y, and x.
    template <std::size_t place>
    [[gnu::always_inline]] void add(Place<place>, const Wide<float>& x, const Wide<float>& y) {
        add_exact(lanes_[2 * place], half_of<0>(x), half_of<0>(y));
        add_exact(lanes_[2 * place + 1], half_of<1>(x), half_of<1>(y));
    }
    template <std::size_t place>
    [[gnu::always_inline]] void add(Place<place>, const Wide<double>& x, const Wide<double>& y) {
        lanes_[place] += x * y;
    }
    template <std::size_t place>
    [[gnu::always_inline]] void add(Place<place>, const Wide<float>& x) {
        lanes_[2 * place] += half_of<0>(x);
        lanes_[2 * place + 1] += half_of<1>(x);
    }
    template <std::size_t place>
    [[gnu::always_inline]] void add(Place<place>, const Wide<double>& x) {
        lanes_[place] += x;
    }

    // The same for one number, of element `lane`.
    void add(std::size_t lane, double x, double y) { one_by_one()[lane] += x * y; }
    void add(std::size_t lane, double x) { one_by_one()[lane] += x; }

    // Adds other partial sums, all of them.
    void add(const Lanes& other) {
        for (std::size_t i = 0; i < count; ++i) lanes_[i] += other.lanes_[i];
    }
    template <class N, std::size_t groups>
    void add(const N (&other)[groups]) {
        add(other, std::make_index_sequence<groups>{});
    }

    // Adds them pairwise, and begins anew.
    double folded() {
        const double total = fold(one_by_one());
        *this = {};
        return total;
    }

private:
    static constexpr std::size_t count = sum_lanes / width<double>;

    template <class N, std::size_t... i>
    void add(const N* other, std::index_sequence<i...>) {
        (add(Place<i>{}, other[i]), ...);
    }

    double* one_by_one() { return reinterpret_cast<double*>(lanes_); }

    // The product of two numbers that were float is exact, so that one rounding gives the same as two.
    [[gnu::always_inline]] static void add_exact(Wide<double>& sum, const Wide<double>& x, const Wide<double>& y) {
#if defined __AVX512F__
        sum = _mm512_fmadd_pd(x, y, sum);
#elif defined __FMA__
        sum = _mm256_fmadd_pd(x, y, sum);
#else
        sum += x * y;
#endif
    }

    Wide<double> lanes_[count] = {};
};

// Calls add(to, T{} or Wide<T>{}, k, place) for elements 0 to n - 1, the first of which belongs to partial sum `lane`,
// where `place` is what Lanes::add wants to know and `to` the sums, of whatever class, or a copy in registers.
template <class T, class To, class Add>
[[gnu::always_inline]] inline void add_all(To& sums, std::size_t n, std::size_t lane, const Add& add) {
    std::size_t k = 0;
    for (; k < n && lane != 0; ++k, lane = (lane + 1) % sum_lanes) add(sums, T{}, k, lane);
    const std::size_t grouped = (n - k) / sum_lanes * sum_lanes;
    To own = sums;
    each_in_groups<T, sum_lanes>(grouped,
                                 [&](auto number, std::size_t i, auto place) { add(own, number, k + i, place); });
    sums = own;
    for (k += grouped; k < n; ++k, ++lane) add(sums, T{}, k, lane);
}

// Adds the squares of n numbers of type T, the first of which belongs to partial sum `lane`: of root(T{}, k), or of as
// many as are wide.
template <class T, class Root>
void add_squares(Lanes& sums, std::size_t n, std::size_t lane, const Root& root) {
    add_all<T>(sums, n, lane, [&](Lanes& to, auto number, std::size_t k, auto place) {
        const auto x = root(number, k);
        to.add(place, x, x);
    });
}

// What reads such numbers from memory.
template <class T>
auto numbers_at(const T* x) {
    return [x](auto number, std::size_t k) { return read_as<decltype(number)>(x + k); };
}

}  // namespace adamas::ADAMAS_ISA
