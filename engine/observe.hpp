// What a step sees of its elements while they are in the nearest cache: the twin of src/adamas/_statistics.py.
#pragma once

#include <limits>

#include "norm.hpp"
#include "rules.hpp"

namespace adamas::ADAMAS_ISA {

// Gathers the statistics of `sum_block` elements, tile by tile.
template <class T>
class Observer {
public:
    // Adds n elements, the first of which has a number that is a multiple of the tile. before: the parameters as they
    // were; overwritten. g: as given. clip: what scale * g is cut to. rates: null if the rule has none.
    void add(std::size_t n, T* before, const T* p, const T* g, T scale, T clip, const T* rates) {
        for (std::size_t k = 0; k < n; ++k) before[k] = p[k] - before[k];
        add_squares(g, n, 1.0, 0, grad_squares_);
        add_squares(p, n, 1.0, 0, param_squares_);
        add_squares(before, n, 1.0, 0, change_squares_);
        if (rates) {
            add_terms(rates, n, 0, rates_, [](auto&) {});
            add_extremes(n, rates);
        }
        constexpr T largest = std::numeric_limits<T>::max();
        std::uint32_t nonfinite = 0, clipped = 0;
        for (std::size_t k = 0; k < n; ++k) {
            nonfinite += !(abs(g[k]) <= largest);
            clipped += abs(scale * g[k]) > clip;
        }
        sums_.nonfinite += nonfinite;
        sums_.clipped += clipped;
    }

    // Writes what was gathered; begins anew.
    void finish(Statistics& to) {
        to = sums_;
        to.grad_squares = fold(grad_squares_);
        to.param_squares = fold(param_squares_);
        to.change_squares = fold(change_squares_);
        to.rates = fold(rates_);
        to.least_rate = std::numeric_limits<double>::infinity();
        to.most_rate = -to.least_rate;
        for (std::size_t lane = 0; lane < sum_lanes; ++lane) {
            if (least_[lane] < to.least_rate) to.least_rate = least_[lane];
            if (most_[lane] > to.most_rate) to.most_rate = most_[lane];
        }
        *this = {};
    }

    Observer() {
        for (std::size_t lane = 0; lane < sum_lanes; ++lane) most_[lane] = -(least_[lane] = beyond);
    }

private:
    static constexpr T beyond = std::numeric_limits<T>::infinity();

    void add_extremes(std::size_t n, const T* rates) {
        const auto add = [&](std::size_t count) {
            for (std::size_t lane = 0; lane < count; ++lane) {
                const T rate = rates[lane];
                least_[lane] = rate < least_[lane] ? rate : least_[lane];
                most_[lane] = rate > most_[lane] ? rate : most_[lane];
            }
            rates += count;
        };
        for (; n >= sum_lanes; n -= sum_lanes) add(sum_lanes);
        add(n);
    }

    double grad_squares_[sum_lanes] = {}, param_squares_[sum_lanes] = {}, change_squares_[sum_lanes] = {};
    double rates_[sum_lanes] = {};
    T least_[sum_lanes], most_[sum_lanes];
    Statistics sums_{};
};

}  // namespace adamas::ADAMAS_ISA
