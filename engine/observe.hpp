// What a step sees of its elements while they are in registers: the twin of src/adamas/_statistics.py.
#pragma once

#include <limits>

#include "sums.hpp"

namespace adamas::ADAMAS_ISA {

// Partial sums of a tile in T, element k in that of k % sum_lanes.
template <class T>
struct TileSums {
    Wide<T> lanes[sum_lanes / width<T>] = {};

    // Adds x to those of a place (see Lanes::add), or to one.
    template <std::size_t place>
    [[gnu::always_inline]] void add(Lanes::Place<place>, const Wide<T>& x) {
        lanes[place] += x;
    }
    void add(std::size_t lane, T x) { reinterpret_cast<T*>(lanes)[lane] += x; }

    // Whether they are as good as in float64: all finite, and one of them at least 2^-90. What float loses of squares,
    // those below 2^-126, is nothing beside more than that.
    bool in_range() const {
        if (std::is_same_v<T, double>) return true;
        auto right = abs(lanes[0]) <= largest<Wide<T>>(), enough = lanes[0] >= all<Wide<T>>(0x1p-90f);
        for (std::size_t i = 1; i < sum_lanes / width<T>; ++i) {
            right &= abs(lanes[i]) <= largest<Wide<T>>();
            enough |= lanes[i] >= all<Wide<T>>(0x1p-90f);
        }
        return !any_set(~right) && any_set(enough);
    }
};

// What was seen of the elements of a tile.
template <class T>
struct Seen {
    TileSums<T> grads, params, changes, rates;
    Wide<T> least = infinity<Wide<T>>(), most = -infinity<Wide<T>>();  // of the rates, NaN aside

    // Adds an element, or as many as are wide, with the place that Lanes::add wants to know. g: as given. before: the
    // parameters as they were. rated: whether the rule has effective learning rates.
    template <bool rated, class Place, class N>
    [[gnu::always_inline]] void add(Place place, const N& g, const N& before, const N& p, const N& rate) {
        grads.add(place, g * g);
        add_params(place, before, p);
        if constexpr (rated) {
            rates.add(place, rate);
            if constexpr (is_wide<N>) {
                least = lesser(rate, least);
                most = greater(rate, most);
            } else {
                least[0] = lesser(rate, least[0]);
                most[0] = greater(rate, most[0]);
            }
        }
    }

    // Takes the parameters and their changes not as they were seen, but from the n elements before and after.
    void replace_params(std::size_t n, const T* before, const T* p) {
        params = changes = {};
        add_all<T>(*this, n, 0, [=](Seen& to, auto number, std::size_t k, auto place) {
            using N = decltype(number);
            to.add_params(place, read_as<N>(before + k), read_as<N>(p + k));
        });
    }

private:
    template <class Place, class N>
    [[gnu::always_inline]] void add_params(Place place, const N& before, const N& p) {
        const N change = p - before;
        params.add(place, p * p);
        changes.add(place, change * change);
    }
};

// Gathers the statistics of a block of sums, tile by tile.
template <class T>
class Observer {
public:
    // Adds n elements, the first of which has a number that is a multiple of the tile, and what was seen of them. g: as
    // given. before: the parameters as they were. Returns false if one of the gradients may not be finite.
    bool add(const Seen<T>& seen, std::size_t n, const T* g, const T* before, const T* p) {
        const bool plain = add(seen.grads, n, grads_, numbers_at(g));
        add(seen.params, n, params_, numbers_at(p));
        add(seen.changes, n, changes_, [=](auto number, std::size_t k) {
            using N = decltype(number);
            return N(read_as<N>(p + k) - read_as<N>(before + k));
        });
        rates_.add(seen.rates.lanes);
        least_ = lesser(seen.least, least_);
        most_ = greater(seen.most, most_);
        return plain;
    }

    // Writes what was gathered; begins anew.
    void finish(Statistics& to) {
        to.grad_squares = grads_.folded();
        to.param_squares = params_.folded();
        to.change_squares = changes_.folded();
        to.rates = rates_.folded();
        to.least_rate = beyond;
        to.most_rate = -beyond;
        for (std::size_t i = 0; i < width<T>; ++i) {
            if (least_[i] < to.least_rate) to.least_rate = least_[i];
            if (most_[i] > to.most_rate) to.most_rate = most_[i];
        }
        *this = {};
    }

private:
    static constexpr T beyond = std::numeric_limits<T>::infinity();

    // Adds squares: the sums of a tile, or if these are not good enough, those of root(T{} or Wide<T>{}, k), k < n, in
    // float64. Returns whether they were.
    template <class Root>
    static bool add(const TileSums<T>& sums, std::size_t n, Lanes& to, const Root& root) {
        const bool right = sums.in_range();
        if (right) {
            to.add(sums.lanes);
        } else {
            Lanes exact;
            add_squares<T>(exact, n, 0, root);
            to.add(exact);
        }
        return right;
    }

    Lanes grads_, params_, changes_, rates_;
    Wide<T> least_ = infinity<Wide<T>>(), most_ = -infinity<Wide<T>>();
};

}  // namespace adamas::ADAMAS_ISA
