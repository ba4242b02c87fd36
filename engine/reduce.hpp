// The stages that need to know a whole array: the sums over it, which a first pass takes, and the step that uses them.
#pragma once

#include "norm.hpp"
#include "rules.hpp"
#include "state.hpp"

namespace adamas::ADAMAS_ISA {

// Whether a rule has an effective learning rate.
template <class Rule>
constexpr bool has_rate = requires { &Rule::rate; };

template <template <class> class Rule, class T, std::size_t... c>
Rule<T> make([[maybe_unused]] const double* coefficients, std::index_sequence<c...>) {
    return {coefficients[c]...};
}
template <template <class> class Rule, class T>
Rule<T> make(const Coefficients& c) {
    return make<Rule, T>(c.rule, std::make_index_sequence<words(Rule<T>::coefficients)>{});
}

// A tile on its way through a step.
template <class T>
struct Changing {
    T g[tile], change[tile], rates[tile];
};

template <template <class> class Rule, class T, std::size_t... i>
[[gnu::flatten]] void change_all(const Rule<T> rule, std::size_t n, const T* p, T* const* state, Changing<T>& to,
                                 std::index_sequence<i...>) {
    for (std::size_t k = 0; k < n; ++k) {
        const auto step = [&](auto... s) {
            to.change[k] = rule.change(p[k], to.g[k], s...);
            if constexpr (has_rate<Rule<T>>) to.rates[k] = rule.rate(s...);
            ((state[i][k] = s), ...);
        };
        step(state[i][k]...);
    }
}

// Takes n elements up to the change by the rule; the state is overwritten.
template <template <class> class Rule, class T>
void change_tile(const Coefficients& c, std::size_t n, const T* p, const T* given, T* const* state, Changing<T>& to) {
    const auto factor = static_cast<T>(c.scale), bound = static_cast<T>(c.clip), weight = static_cast<T>(c.l2);
    for (std::size_t k = 0; k < n; ++k) to.g[k] = factor * given[k];
    if (c.clip < std::numeric_limits<double>::infinity())
        for (std::size_t k = 0; k < n; ++k) to.g[k] = clamp(to.g[k], bound);
    if (c.l2 != 0)
        for (std::size_t k = 0; k < n; ++k) to.g[k] = contain(to.g[k] + weight * p[k], to.g[k]);
    change_all(make<Rule, T>(c), n, p, state, to, std::make_index_sequence<words(Rule<T>::state_names)>{});
    if (c.frozen)
        for (std::size_t k = 0; k < n; ++k) to.change[k] = 0;
}

template <class T>
bool agrees(T change, T g) {
    return sign(g) * change > 0;
}

// Adds the products of n pairs, in float64, to the partial sums.
template <class T>
void add_products(const T* a, const T* b, std::size_t n, double* sums) {
    for (std::size_t k = 0; k < n; k += sum_lanes) {
        const std::size_t count = n - k < sum_lanes ? n - k : sum_lanes;
        for (std::size_t lane = 0; lane < count; ++lane)
            sums[lane] += static_cast<double>(a[k + lane]) * static_cast<double>(b[k + lane]);
    }
}

// The partial sums of a block.
struct Lanes {
    double units[sum_lanes] = {}, changes[sum_lanes] = {}, overlap[sum_lanes] = {}, params[sum_lanes] = {};
    std::uint64_t agreeing = 0;

    template <bool rated, class T>
    void add(const Coefficients& c, std::size_t n, const T* p, Changing<T>& tile) {
        if (c.update_clip < std::numeric_limits<double>::infinity()) {
            if constexpr (rated)
                for (std::size_t k = 0; k < n; ++k) tile.rates[k] = tile.g[k] * tile.rates[k];
            const T* const unit = rated ? tile.rates : tile.change;
            add_products(unit, unit, n, units);
        }
        if (c.cautious) {
            std::uint32_t count = 0;
            for (std::size_t k = 0; k < n; ++k) {
                const bool agreeing_k = agrees(tile.change[k], tile.g[k]);
                count += agreeing_k;
                tile.change[k] = agreeing_k ? tile.change[k] : T{0};
            }
            agreeing += count;
        }
        if (c.trust != 0) {
            add_products(tile.change, tile.change, n, changes);
            add_products(tile.change, p, n, overlap);
            add_products(p, p, n, params);
        }
    }

    Sums folded() { return {static_cast<double>(agreeing), fold(units), fold(changes), fold(overlap), fold(params)}; }
};

// Sums up elements begin to end of a block; nothing else is written.
template <template <class> class Rule, class T>
void sum_up(const Block& block, std::size_t begin, std::size_t end) {
    constexpr std::size_t states = words(Rule<T>::state_names);
    const Coefficients& c = *block.coefficients;
    T p_tile[tile], g_tile[tile], state_tiles[states + 1][tile];
    Changing<T> changing;
    Lanes lanes;
    for (std::size_t start = begin; start < end;) {
        const std::size_t left = end - start, n = left < tile ? left : tile;
        T* state[states + 1] = {};
        load_state<Rule<T>, true>(block, start, n, state_tiles, state);
        const T* const p = tile_of(block.p, start, n, p_tile);
        change_tile<Rule>(c, n, p, tile_of(block.g, start, n, g_tile), state, changing);
        lanes.template add<has_rate<Rule<T>>>(c, n, p, changing);
        const std::size_t next = start + n;
        if (next % sum_block == 0 || next == block.size) {
            block.sums[start / sum_block] = lanes.folded();
            lanes = {};
        }
        start = next;
    }
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
        if (0 < sums.params && sums.params < beyond && 0 < changes && changes < beyond)
            whole.factor = c.trust * sqrt(sums.params) / sqrt(changes);
    }
    return whole;
}

// Steps n elements of a block whose sums are known.
template <template <class> class Rule, class T>
void step_tile(const Block& block, std::size_t n, T* p, const T* given, T* const* state, T* rates) {
    const Coefficients& c = *block.coefficients;
    const auto mask = static_cast<T>(block.whole.mask), factor = static_cast<T>(block.whole.factor);
    const auto decay = static_cast<T>(c.decay);
    Changing<T> to;
    change_tile<Rule>(c, n, p, given, state, to);
    if (rates) std::memcpy(rates, to.rates, n * sizeof(T));
    if (c.cautious)
        for (std::size_t k = 0; k < n; ++k) to.change[k] = agrees(to.change[k], to.g[k]) ? mask * to.change[k] : T{0};
    if (c.decay != 0)
        for (std::size_t k = 0; k < n; ++k) to.change[k] = to.change[k] + decay * p[k];
    if (block.whole.factor != 1)
        for (std::size_t k = 0; k < n; ++k) to.change[k] = factor * contain(to.change[k], to.g[k]);
    for (std::size_t k = 0; k < n; ++k) p[k] = p[k] - to.change[k];
}

}  // namespace adamas::ADAMAS_ISA
