// What a step sees of its elements while they are in the nearest cache: the twin of src/adamas/_statistics.py.
#pragma once

#include <limits>

#include "norm.hpp"
#include "rules.hpp"

namespace adamas::ADAMAS_ISA {

// What was seen of a tile, in T: partial sums of squares and of rates, element k in that of k % sum_lanes, and the
// extremes of the rates, NaN aside. It lives in registers while a loop fills it.
template <class T>
struct Seen {
    static constexpr std::size_t count = sum_lanes / width<T>;
    Wide<T> grads[count] = {}, params[count] = {}, changes[count] = {}, rates[count] = {};
    Wide<T> least = infinity<Wide<T>>(), most = -infinity<Wide<T>>();

    // Adds as many elements as are wide, of that place among the partial sums; or one to the partial sum `lane`.
    template <bool rated, std::size_t place>
    [[gnu::always_inline]] void add(std::integral_constant<std::size_t, place>, const Wide<T>& g, const Wide<T>& before,
                                    const Wide<T>& p, const Wide<T>& rate) {
        add_to(grads[place], params[place], changes[place], g, p, p - before);
        if constexpr (rated) add_rate(rates[place], least, most, rate);
    }
    template <bool rated>
    void add(std::size_t lane, T g, T before, T p, T rate) {
        add_to(of(grads)[lane], of(params)[lane], of(changes)[lane], g, p, p - before);
        if constexpr (rated) add_rate(of(rates)[lane], *of(&least), *of(&most), rate);
    }

    // Adds the elements of a tile that is in memory.
    template <bool rated>
    void add_all(std::size_t n, const T* g, const T* before, const T* p, const T* rates) {
        const auto add_as = [&](auto number, std::size_t k, auto place) {
            using N = decltype(number);
            add<rated>(place, read_as<N>(g + k), read_as<N>(before + k), read_as<N>(p + k), read_as<N>(rates + k));
        };
        const std::size_t whole = n - n % sum_lanes;
        each_in_groups<T, sum_lanes>(whole, add_as);
        for (std::size_t k = whole; k < n; ++k) add_as(T{}, k, k - whole);
    }

    static T* of(Wide<T>* lanes) { return reinterpret_cast<T*>(lanes); }
    static const T* of(const Wide<T>* lanes) { return reinterpret_cast<const T*>(lanes); }

private:
    template <class N>
    [[gnu::always_inline]] static void add_to(N& grads, N& params, N& changes, const N& g, const N& p,
                                              const N& change) {
        grads += g * g;
        params += p * p;
        changes += change * change;
    }
    template <class N>
    [[gnu::always_inline]] static void add_rate(N& rates, N& least, N& most, const N& rate) {
        rates += rate;
        least = lesser(rate, least);
        most = greater(rate, most);
    }
};

// Whether sums of a tile in T are as good as in float64: all finite, and one of them at least `least`.
template <class T>
bool in_range(const Wide<T>* lanes, T least) {
    if (std::is_same_v<T, double>) return true;
    auto right = abs(lanes[0]) <= largest<Wide<T>>(), enough = lanes[0] >= least;
    for (std::size_t i = 1; i < Seen<T>::count; ++i) {
        right &= abs(lanes[i]) <= largest<Wide<T>>();
        enough |= lanes[i] >= least;
    }
    return !any_set(~right) && any_set(enough);
}

// Gathers the statistics of `sum_block` elements, tile by tile.
template <class T>
class Observer {
public:
    // Adds n elements, the first of which has a number that is a multiple of the tile, and what was seen of them. g: as
    // given. before: the parameters as they were. clip: what scale * g is cut to. rates: null if the rule has none.
    void add(const Seen<T>& seen, std::size_t n, const T* g, const T* before, const T* p, const T* rates, T scale,
             T clip) {
        const auto add = [&](double* to, const Wide<T>* lanes, double least, const auto& term) {
            const T* const sums = Seen<T>::of(lanes);
            const bool right = in_range<T>(lanes, static_cast<T>(least));
            if (right) {
                for (std::size_t lane = 0; lane < sum_lanes; ++lane) to[lane] += sums[lane];
            } else {
                double exact[sum_lanes] = {};
                for (std::size_t k = 0; k < n; ++k) exact[k % sum_lanes] += term(k);
                for (std::size_t lane = 0; lane < sum_lanes; ++lane) to[lane] += exact[lane];
            }
            return right;
        };
        const auto square = [](double x) { return x * x; };
        const bool plain = add(grads_, seen.grads, least_squares, [&](std::size_t k) { return square(g[k]); });
        add(params_, seen.params, least_squares, [&](std::size_t k) { return square(p[k]); });
        add(changes_, seen.changes, least_squares, [&](std::size_t k) { return square(p[k] - before[k]); });
        if (rates) {
            add(rates_, seen.rates, -beyond, [&](std::size_t k) { return double{rates[k]}; });
            least_ = lesser(seen.least, least_);
            most_ = greater(seen.most, most_);
        }
        if (!plain || std::is_same_v<T, double>)
            for (std::size_t k = 0; k < n; ++k) sums_.nonfinite += !(abs(g[k]) <= std::numeric_limits<T>::max());
        if (clip < beyond)
            for (std::size_t k = 0; k < n; ++k) sums_.clipped += abs(scale * g[k]) > clip;
    }

    // Writes what was gathered; begins anew.
    void finish(Statistics& to) {
        to = sums_;
        to.grad_squares = fold(grads_);
        to.param_squares = fold(params_);
        to.change_squares = fold(changes_);
        to.rates = fold(rates_);
        to.least_rate = beyond;
        to.most_rate = -beyond;
        for (std::size_t lane = 0; lane < width<T>; ++lane) {
            if (least_[lane] < to.least_rate) to.least_rate = least_[lane];
            if (most_[lane] > to.most_rate) to.most_rate = most_[lane];
        }
        *this = {};
    }

private:
    static constexpr T beyond = std::numeric_limits<T>::infinity();

    double grads_[sum_lanes] = {}, params_[sum_lanes] = {}, changes_[sum_lanes] = {}, rates_[sum_lanes] = {};
    Wide<T> least_ = infinity<Wide<T>>(), most_ = -infinity<Wide<T>>();
    Statistics sums_{};
};

}  // namespace adamas::ADAMAS_ISA
