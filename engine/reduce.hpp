// The stages that need to know a whole array: the sums over it, which a first pass takes, and what they come to.
#pragma once

#include "step.hpp"
#include "sums.hpp"

namespace adamas::ADAMAS_ISA {

// The partial sums of a block, and which of them are wanted.
class Tally {
public:
    explicit Tally(const Coefficients& c)
        : measures_(c.update_clip < std::numeric_limits<double>::infinity()),
          cautious_(c.cautious),
          trusts_(c.trust != 0) {}

    // Adds an element, or as many as are wide, with the place that Lanes::add wants to know. unit(): what the clip of
    // updates measures.
    template <class Place, class N, class Unit>
    [[gnu::always_inline]] void add(Place place, const N& p, const N& g, N change, const Unit& unit) {
        if (measures_) {
            const N measured = unit();
            units_.add(place, measured, measured);
        }
        if (cautious_) {
            const auto agreeing = agrees(change, g);
            agreeing_.add(place, agreeing ? all<N>(1) : N{});
            change = agreeing ? change : N{};
        }
        if (trusts_) {
            changes_.add(place, change, change);
            overlap_.add(place, change, p);
            params_.add(place, p, p);
        }
    }

    Sums folded() {
        return {agreeing_.folded(), units_.folded(), changes_.folded(), overlap_.folded(), params_.folded()};
    }

private:
    Condition measures_, cautious_, trusts_;
    Lanes agreeing_, units_, changes_, overlap_, params_;
};

// Sums up elements begin to end of a block; nothing else is written.
template <template <class> class Rule, class T, class... State>
[[gnu::flatten]] void sum_up_with(const Block& block, std::size_t begin, std::size_t end, State... state) {
    const Coefficients& c = *block.coefficients;
    const Step<Rule, T> one(c);
    const Step<Rule, Wide<T>> many(c);
    alignas(wide_bytes) T p_tile[tile], g_tile[tile];
    Tally sums(c);
    for (std::size_t start = begin; start < end;) {
        const std::size_t left = end - start, n = left < tile ? left : tile;
        (state.open(start, n), ...);
        const T *const p = tile_of(block.p, start, n, p_tile), *const g = tile_of(block.g, start, n, g_tile);
        add_all<T>(sums, n, 0, [&](Tally& to, auto number, std::size_t k, auto place) {
            using N = decltype(number);
            const auto& step = pick<N>(one, many);
            const N p_k = read_as<N>(p + k), g_k = step.template gradient<true>(read_as<N>(g + k), p_k);
            [&](auto... s) {
                const N moved = step.rule.change(p_k, g_k, s...), change = step.frozen ? N{} : moved;
                to.add(place, p_k, g_k, change, [&] {
                    if constexpr (has_rate<Rule<T>>) {
                        return N(g_k * step.rule.rate(s...));
                    } else {
                        return change;
                    }
                });
            }(state.template read<N>(k)...);
        });
        start += n;
        if (start % sum_block == 0 || start == block.size) block.sums[(start - 1) / sum_block] = sums.folded();
    }
}

template <template <class> class Rule, class T, std::size_t... i>
void sum_up(const Block& block, std::size_t begin, std::size_t end, std::index_sequence<i...>) {
    [[maybe_unused]] alignas(wide_bytes) T room[sizeof...(i) + 1][tile];
    sum_up_with<Rule, T>(block, begin, end, Tiled<is_nonnegative<Rule<T>>(i), T>(block, i, room[i])...);
}
template <template <class> class Rule, class T>
void sum_up(const Block& block, std::size_t begin, std::size_t end) {
    sum_up<Rule, T>(block, begin, end, std::make_index_sequence<words(Rule<T>::state_names)>{});
}

inline Whole whole_of(const Coefficients& c, std::size_t size, const Sums& sums) {
    constexpr double beyond = std::numeric_limits<double>::infinity();
    Whole whole;
    const auto n = static_cast<double>(size);
    if (c.cautious) {
        const double share = sums.agreeing / n;
        whole.mask = 1 / (share > 1e-3 ? share : 1e-3);
    }
    if (c.update_clip < beyond) {
        const double rms = sqrt(sums.units / n);
        if (c.update_clip < rms && rms < beyond) whole.factor = c.update_clip / rms;
    }
    if (c.trust != 0) {
        const double changes = whole.mask * whole.mask * sums.changes + 2 * whole.mask * c.decay * sums.overlap +
                               c.decay * c.decay * sums.params;
        if (0 < sums.params && sums.params < beyond && 0 < changes && changes < beyond) {
            const double ratio_of_norms = c.trust * sqrt(sums.params) / sqrt(changes);
            whole.factor = ratio_of_norms < 0x1p127 ? ratio_of_norms : whole.factor;
        }
    }
    return whole;
}

}  // namespace adamas::ADAMAS_ISA
