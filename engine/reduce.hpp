// The stages that need to know a whole array: the sums over it, which a first pass takes, and what they come to.
#pragma once

#include "norm.hpp"
#include "step.hpp"

namespace adamas::ADAMAS_ISA {

// A tile as the rule changes it.
template <class T>
struct Changing {
    alignas(wide_bytes) T g[tile], change[tile], rates[tile];
};

// Adds the products, in float64, of two arrays to partial sums: a by a, a by b and b by b.
template <class T>
void add_pairs(const T* a, const T* b, std::size_t n, double* aa, double* ab, double* bb) {
    constexpr std::size_t parts = sum_lanes / part_size;
    Part sums[3][parts];
    double* const to[] = {aa, ab, bb};
    for (std::size_t j = 0; j < 3; ++j) std::memcpy(sums[j], to[j], sizeof sums[j]);
    std::size_t k = 0;
    for (; n - k >= sum_lanes; k += sum_lanes) {
#pragma GCC unroll 8
        for (std::size_t i = 0; i < parts; ++i) {
            Part x, y;
            read(a + k + i * part_size, x);
            read(b + k + i * part_size, y);
            sums[0][i] += x * x;
            sums[1][i] += x * y;
            sums[2][i] += y * y;
        }
    }
    for (std::size_t j = 0; j < 3; ++j) std::memcpy(to[j], sums[j], sizeof sums[j]);
    for (std::size_t lane = 0; k < n; ++k, ++lane) {
        const double x = a[k], y = b[k];
        aa[lane] += x * x;
        ab[lane] += x * y;
        bb[lane] += y * y;
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
            add_squares(unit, n, 1.0, 0, units);
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
            add_pairs(tile.change, p, n, changes, overlap, params);
        }
    }

    Sums folded() { return {static_cast<double>(agreeing), fold(units), fold(changes), fold(overlap), fold(params)}; }
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstringop-overflow"  // GCC 12 does not see that n is at most a tile

// Sums up elements begin to end of a block; nothing else is written.
template <template <class> class Rule, class T, class... State>
[[gnu::flatten]] void sum_up_with(const Block& block, std::size_t begin, std::size_t end, State... state) {
    const Coefficients& c = *block.coefficients;
    const Step<Rule, T> one(c);
    const Step<Rule, Wide<T>> many(c);
    const bool rated = c.update_clip < std::numeric_limits<double>::infinity();
    alignas(wide_bytes) T p_tile[tile], g_tile[tile];
    Changing<T> to;
    Lanes lanes;
    for (std::size_t start = begin; start < end;) {
        const std::size_t left = end - start, n = left < tile ? left : tile;
        (state.open(start, n), ...);
        const T *const p = tile_of(block.p, start, n, p_tile), *const g = tile_of(block.g, start, n, g_tile);
        each<T>(n, [&](auto number, std::size_t k) {
            using N = decltype(number);
            const auto& step = pick<N>(one, many);
            const N p_k = read_as<N>(p + k), g_k = step.template gradient<true>(read_as<N>(g + k), p_k);
            const N change = [&](auto... s) {
                const N moved = step.rule.change(p_k, g_k, s...);
                if constexpr (has_rate<Rule<T>>)
                    if (rated) write_to(to.rates + k, step.rule.rate(s...));
                return step.frozen ? N{} : moved;
            }(state.template read<N>(k)...);
            write_to(to.g + k, g_k);
            write_to(to.change + k, change);
        });
        lanes.template add<has_rate<Rule<T>>>(c, n, p, to);
        start += n;
        if (start % sum_block == 0 || start == block.size) {
            block.sums[(start - 1) / sum_block] = lanes.folded();
            lanes = {};
        }
    }
}

#pragma GCC diagnostic pop

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
        if (0 < sums.params && sums.params < beyond && 0 < changes && changes < beyond)
            whole.factor = c.trust * sqrt(sums.params) / sqrt(changes);
    }
    return whole;
}

}  // namespace adamas::ADAMAS_ISA
