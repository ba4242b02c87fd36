// What a step sees of its elements while they are in the nearest cache: the twin of src/adamas/_statistics.py.
#pragma once

#include <limits>

#include "norm.hpp"
#include "rules.hpp"

namespace adamas::ADAMAS_ISA {

// Adds what term(i, x) writes to x for the elements i < n, of a tile, to partial sums in T: element i to that of
// i % sum_lanes. x is a number, or as many as are wide.
template <class T, class Term>
[[gnu::always_inline]] inline void add_up(std::size_t n, T* lanes, const Term& term) {
    constexpr std::size_t width = ADAMAS_ISA::width<T>, count = sum_lanes / width;
    Wide<T> sums[count] = {}, x;
    std::size_t i = 0;
    for (; n - i >= sum_lanes; i += sum_lanes) {
        for (std::size_t k = 0; k < count; ++k) {
            term(i + k * width, x);
            sums[k] += x;
        }
    }
    std::memcpy(lanes, sums, sizeof sums);
    for (std::size_t lane = 0; i < n; ++i, ++lane) {
        T one;
        term(i, one);
        lanes[lane] += one;
    }
}

// Reads as many numbers as `to` has.
template <class T, class N>
[[gnu::always_inline]] inline void read_wide(const T* from, N& to) {
    std::memcpy(&to, from, sizeof to);
}

// Whether sums of a tile in T are as good as in float64: all finite, and one of them at least `least`.
template <class T>
bool in_range(const T* lanes, T least) {
    if (std::is_same_v<T, double>) return true;
    int finite = 1, enough = 0;
    for (std::size_t lane = 0; lane < sum_lanes; ++lane) {
        finite &= abs(lanes[lane]) <= std::numeric_limits<T>::max();
        enough |= lanes[lane] >= least;
    }
    return finite & enough;
}

// Gathers the statistics of `sum_block` elements, tile by tile.
template <class T>
class Observer {
public:
    // Adds n elements, the first of which has a number that is a multiple of the tile. before: the parameters as they
    // were. g: as given. clip: what scale * g is cut to. rates: null if the rule has none. prefetch(i), for i < 4, is
    // called in between: else the memory would be idle.
    template <class Prefetch>
    void add(std::size_t n, const T* before, const T* p, const T* g, T scale, T clip, const T* rates,
             const Prefetch& prefetch) {
        prefetch(0);
        const bool plain = add_squares_of(n, grad_squares_, [g](std::size_t i, auto& x) { read_wide(g + i, x); });
        prefetch(1);
        add_squares_of(n, param_squares_, [p](std::size_t i, auto& x) { read_wide(p + i, x); });
        prefetch(2);
        add_squares_of(n, change_squares_, [p, before](std::size_t i, auto& x) {
            auto old = x;
            read_wide(p + i, x);
            read_wide(before + i, old);
            x -= old;
        });
        prefetch(3);
        if (rates) add_rates(n, rates);
        if (!plain || std::is_same_v<T, double>)
            for (std::size_t k = 0; k < n; ++k) sums_.nonfinite += !(abs(g[k]) <= std::numeric_limits<T>::max());
        if (clip < beyond)
            for (std::size_t k = 0; k < n; ++k) sums_.clipped += abs(scale * g[k]) > clip;
    }

    // Writes what was gathered; begins anew.
    void finish(Statistics& to) {
        to = sums_;
        to.grad_squares = fold(grad_squares_);
        to.param_squares = fold(param_squares_);
        to.change_squares = fold(change_squares_);
        to.rates = fold(rates_);
        to.least_rate = beyond;
        to.most_rate = -beyond;
        for (std::size_t lane = 0; lane < width; ++lane) {
            if (least_[lane] < to.least_rate) to.least_rate = least_[lane];
            if (most_[lane] > to.most_rate) to.most_rate = most_[lane];
        }
        *this = {};
    }

private:
    static constexpr T beyond = std::numeric_limits<T>::infinity();
    static constexpr std::size_t width = ADAMAS_ISA::width<T>;
    typedef Wide<T> Numbers;

    // Adds the squares of what read(i, x) reads: each tile in T where that is in range. Returns whether it is.
    template <class Read>
    bool add_squares_of(std::size_t n, double* to, const Read& read) {
        T lanes[sum_lanes];
        add_up(n, lanes, [&read](std::size_t i, auto& x) {
            read(i, x);
            x *= x;
        });
        if (in_range(lanes, static_cast<T>(least_squares))) {
            for (std::size_t lane = 0; lane < sum_lanes; ++lane) to[lane] += lanes[lane];
            return true;
        }
        double exact[sum_lanes] = {};
        for (std::size_t i = 0; i < n; ++i) {
            T x;
            read(i, x);
            exact[i % sum_lanes] += static_cast<double>(x) * x;
        }
        for (std::size_t lane = 0; lane < sum_lanes; ++lane) to[lane] += exact[lane];
        return false;
    }

    void add_rates(std::size_t n, const T* rates) {
        Numbers least = least_, most = most_;  // which no pointer can reach
        T lanes[sum_lanes];
        add_up(n, lanes, [&](std::size_t i, auto& x) {
            read_wide(rates + i, x);
            if constexpr (std::is_same_v<decltype(x), Numbers&>) {
                least = x < least ? x : least;
                most = x > most ? x : most;
            } else {
                least[0] = x < least[0] ? x : least[0];
                most[0] = x > most[0] ? x : most[0];
            }
        });
        least_ = least;
        most_ = most;
        if (in_range(lanes, -beyond)) {
            for (std::size_t lane = 0; lane < sum_lanes; ++lane) rates_[lane] += lanes[lane];
            return;
        }
        double exact[sum_lanes] = {};
        for (std::size_t i = 0; i < n; ++i) exact[i % sum_lanes] += rates[i];
        for (std::size_t lane = 0; lane < sum_lanes; ++lane) rates_[lane] += exact[lane];
    }

    double grad_squares_[sum_lanes] = {}, param_squares_[sum_lanes] = {}, change_squares_[sum_lanes] = {};
    double rates_[sum_lanes] = {};
    Numbers least_ = Numbers{} + beyond, most_ = Numbers{} - beyond;
    Statistics sums_{};
};

}  // namespace adamas::ADAMAS_ISA
