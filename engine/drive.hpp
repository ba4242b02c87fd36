// The only element loop: load a tile, apply the stages and the rule, store.
#pragma once

#include <limits>
#include <utility>

#include "observe.hpp"
#include "reduce.hpp"

namespace adamas::ADAMAS_ISA {

enum class Decay { none, coupled, decoupled };

// A step that nobody looks at.
struct Unseen {};

// One that is looked at. given: the gradients before they were clipped. before, rates: where the parameters go as they
// were, and the effective learning rates.
template <class T>
struct Watch {
    const T* given;
    T *before, *rates;
    Seen<T>* seen;
};

// Steps dense arrays, which do not overlap (work.cpp checks). Flattened: the rule must be inlined, though it is used in
// many places.
template <Decay decay, template <class> class Rule, class T, class Look, class... State>
[[gnu::flatten]] void loop(const Coefficients& c, double scale, double weight, std::size_t n, T* p, const T* g,
                           const Look look, const State... state) {
    constexpr bool looks = std::is_same_v<Look, Watch<T>>, rated = looks && has_rate<Rule<T>>;
    [[maybe_unused]] Seen<T> seen;
    const auto one = make<Rule, T>(c);
    const auto many = make<Rule, Wide<T>>(c);
    const bool frozen = c.frozen;
    const auto step = [&](auto number, std::size_t k, auto count) {
        using N = decltype(number);
        const auto& rule = pick<N>(one, many);
        const N p_k = read_as<N>(p + k, count), weight_k = all<N>(static_cast<T>(weight));
        N g_k = all<N>(static_cast<T>(scale)) * read_as<N>(g + k, count), rate{};
        if constexpr (decay == Decay::coupled) g_k = contain(g_k + weight_k * p_k, g_k);
        const N moved = [&](auto... s) {
            const N change = rule.change(p_k, g_k, s...);
            if constexpr (rated) rate = rule.rate(s...);
            (state.write(k, s, count), ...);
            return change;
        }(state.template read<N>(k, count)...);
        N change = frozen ? N{} : moved;
        if constexpr (decay == Decay::decoupled) change = change + weight_k * p_k;
        const N p_next = p_k - change;
        write_to(p + k, p_next, count);
        if constexpr (looks) {
            write_to(look.before + k, p_k);
            if constexpr (rated) write_to(look.rates + k, rate);
            seen.template add<rated>(k, read_as<N>(look.given + k), p_k, p_next, rate);
        }
    };
    if constexpr (looks) {
        each<T, sum_lanes>(n, [&](auto number, std::size_t k) { step(number, k, All{}); });
    } else {
        each_wide<T>(n, step);
    }
    if constexpr (looks) *look.seen = seen;
}

// find(i): where state array i is, which may be of different types.
template <template <class> class Rule, class T, class Look, class Find, std::size_t... i>
void dense(const Coefficients& c, double scale, std::size_t n, T* p, const T* g, const Look& look,
           [[maybe_unused]] const Find& find, std::index_sequence<i...>) {
    const auto run = [&](auto decay, double weight) {
        loop<decay.value, Rule>(c, scale, weight, n, p, g, look, find(std::integral_constant<std::size_t, i>{})...);
    };
    if (c.l2 != 0) return run(std::integral_constant<Decay, Decay::coupled>{}, c.l2);
    if (c.decay != 0) return run(std::integral_constant<Decay, Decay::decoupled>{}, c.decay);
    run(std::integral_constant<Decay, Decay::none>{}, 0.0);
}

template <template <class> class Rule, class T, class Look, class Find>
void dense(const Coefficients& c, double scale, std::size_t n, T* p, const T* g, const Look& look, const Find& find) {
    dense<Rule>(c, scale, n, p, g, look, find, std::make_index_sequence<words(Rule<T>::state_names)>{});
}

// Returns how many of n elements lie before the first cache line. Large NumPy arrays begin 16 bytes into one, all of
// them alike, so every wide load and store would touch two lines; small arrays are not worth the detour.
template <class T>
std::size_t to_cache_line(const T* first, std::size_t n) {
    constexpr std::size_t line = 64, worth = 1024;
    const std::size_t inside = reinterpret_cast<std::uintptr_t>(first) % line;
    return n < worth || inside % sizeof(T) != 0 ? 0 : (line - inside) % line / sizeof(T);
}

// What follows a step of elements start to start + n, whose new values are in p. observed: whether somebody will look.
template <bool observed, class T>
void finish(const Block& block, std::size_t start, std::size_t n, T* p) {
    const Coefficients& c = *block.coefficients;
    const Slots& slots = *block.slots;
    if (block.p.type != native<T> || block.p.view) {
        const Dice dice(c.key, slots.first, 0);
        store<false>(p, block.p, start, n, block.stochastic ? &dice : nullptr);
        const bool is_seen = observed || slots.average || slots.copy;
        if (is_seen && block.p.type != native<T>) load(block.p, start, n, p);  // as it is
    }
    if (slots.average) {
        const Average<T> ema(c.ema);
        T* const average = static_cast<T*>(slots.average) + start;
        ADAMAS_INDEPENDENT
        for (std::size_t k = 0; k < n; ++k) average[k] = lerp(average[k], p[k], ema);
    }
    if (slots.copy) store<false>(p, Operand{slots.copy, slots.copy_type, nullptr}, start, n);
}

// Steps a tile whose state is read and written as it is stored, if there is such a loop.
template <template <class> class Rule>
bool step_stored(const Block& block, double scale, std::size_t start, std::size_t n, float* p, const float* g,
                 float (*tiles)[tile]) {
    const Coefficients& c = *block.coefficients;
    const Slots& slots = *block.slots;
    if (c.reduces()) return false;
    if (slots.state_type == Type::q8) {
        dense<Rule>(c, scale, n, p, g, Unseen{}, [&](auto i) {
            return Coded<is_nonnegative<Rule<float>>(i)>(Q8(slots.state[i], block.size), start, tiles[i]);
        });
        store_state<Rule<float>>(block, start, n, tiles);
        return true;
    }
    if (slots.state_type != Type::bfloat16) return false;
    const auto numbers = [&](std::size_t i) { return static_cast<BFloat16*>(slots.state[i]) + start; };
    if (block.stochastic) {
        if (start % block_size + n > block_size) return false;
        dense<Rule>(c, scale, n, p, g, Unseen{},
                    [&](auto i) { return Thrown{numbers(i), Dice(c.key, slots.first, i + 1).block(start)}; });
        return true;
    }
    dense<Rule>(c, scale, n, p, g, Unseen{}, [&](auto i) { return Kept<BFloat16>{numbers(i)}; });
    return true;
}

template <template <class> class Rule, bool observed, class T>
void drive_tiles(const Block& block, std::size_t begin, std::size_t end) {
    constexpr std::size_t states = words(Rule<T>::state_names);
    const Coefficients& c = *block.coefficients;
    const bool clips = c.clip < std::numeric_limits<double>::infinity();
    const double scale = clips ? 1.0 : c.scale;  // of what the rule gets
    const auto factor = static_cast<T>(c.scale), bound = static_cast<T>(c.clip);
    const bool reduces = c.reduces();
    alignas(wide_bytes) T p_tile[tile], g_tile[tile], clipped[tile], state_tiles[states + 1][tile];
    [[maybe_unused]] alignas(wide_bytes) T before[tile], rates[tile];
    [[maybe_unused]] Seen<T> seen;
    [[maybe_unused]] Observer<T> observer;
    for (std::size_t start = begin; start < end;) {
        const std::size_t left = end - start, n = left < tile ? left : tile;
        T* const p = tile_of(block.p, start, n, p_tile);
        const T* const given = tile_of(block.g, start, n, g_tile);
        const T* g = given;
        if (clips) {
            for (std::size_t k = 0; k < n; ++k) clipped[k] = clamp(factor * given[k], bound);
            g = clipped;
        }
        bool stepped = false;
        if constexpr (!observed && std::is_same_v<T, float>)
            stepped = step_stored<Rule>(block, scale, start, n, p, g, state_tiles);
        if (!stepped) {
            T* state[states + 1] = {};
            const auto find = [&](auto i) { return Kept<T>{state[i]}; };
            load_state<Rule<T>>(block, start, n, state_tiles, state);
            if (reduces) {
                if (observed) std::memcpy(before, p, n * sizeof(T));
                step_tile<Rule>(block, n, p, given, state, observed ? rates : nullptr);
            } else if constexpr (observed) {
                dense<Rule>(c, scale, n, p, g, Watch<T>{given, before, rates, &seen}, find);
            } else {
                dense<Rule>(c, scale, n, p, g, Unseen{}, find);
            }
            store_state<Rule<T>>(block, start, n, state_tiles);
        }
        finish<observed>(block, start, n, p);
        const std::size_t next = start + n;
        if constexpr (observed) {
            constexpr bool rated = has_rate<Rule<T>>;
            if (reduces || block.p.type != native<T>) {  // not seen, or not as it was rounded
                seen = {};
                seen.template add_all<rated>(n, given, before, p, rates);
            }
            observer.add(seen, n, given, before, p, rated ? rates : nullptr, factor, bound);
            if (next % sum_block == 0 || next == block.size) observer.finish(block.statistics[start / sum_block]);
        }
        if (block.zero) clear(block.g, start, n);
        start = next;
    }
}

template <template <class> class Rule, class T>
void drive_rows(const Block& block, std::size_t begin, std::size_t end);

template <template <class> class Rule, class T>
void drive(const Block& block, std::size_t begin, std::size_t end) {
    if (block.rows) return drive_rows<Rule, T>(block, begin, end);
    const Slots& slots = *block.slots;
    const bool plain = block.p.type == native<T> && block.g.type == native<T> && slots.state_type == native<T> &&
                       !block.p.view && !block.g.view && !slots.average && !slots.copy && !block.zero &&
                       block.coefficients->clip == std::numeric_limits<double>::infinity() &&
                       !block.coefficients->reduces();
    if (block.statistics) return drive_tiles<Rule, true, T>(block, begin, end);
    if (!plain) return drive_tiles<Rule, false, T>(block, begin, end);
    const auto step = [&](std::size_t start, std::size_t n) {
        dense<Rule>(*block.coefficients, block.coefficients->scale, n, static_cast<T*>(block.p.data) + start,
                    static_cast<const T*>(block.g.data) + start, Unseen{},
                    [&](auto i) { return Kept<T>{static_cast<T*>(slots.state[i]) + start}; });
    };
    const std::size_t head = to_cache_line(static_cast<T*>(block.p.data) + begin, end - begin);
    if (head > 0) step(begin, head);
    step(begin + head, end - begin - head);
}

// Steps the rows of a table that elements begin to end of a block are, each as an array of its own.
template <template <class> class Rule, class T>
void drive_rows(const Block& block, std::size_t begin, std::size_t end) {
    constexpr std::size_t ahead = 6, states = words(Rule<T>::state_names);
    const std::size_t width = block.width, last = end / width;
    const std::size_t statistics = parts(block) / (block.size / width);  // of a row
    const RowArrays arrays(block.p, *block.slots, width);
    Slots slots = *block.slots;
    Block row = block;
    row.rows = nullptr;
    row.size = width;
    row.slots = &slots;
    const std::size_t p_bytes = arrays.bytes[0], g_bytes = width * static_cast<std::size_t>(itemsize(block.g.type));
    for (std::size_t i = begin / width; i < last; ++i) {
        if (i + ahead < last) arrays.prefetch(static_cast<std::size_t>(block.rows[i + ahead]));
        const auto place = static_cast<std::size_t>(block.rows[i]);
        row.p.data = static_cast<char*>(block.p.data) + place * p_bytes;
        row.g.data = static_cast<char*>(block.g.data) + i * g_bytes;
        for (std::size_t k = 0; k < states; ++k)
            slots.state[k] = static_cast<char*>(block.slots->state[k]) + place * arrays.bytes[k + 1];
        if (block.statistics) row.statistics = block.statistics + i * statistics;
        drive<Rule, T>(row, 0, width);
    }
}

}  // namespace adamas::ADAMAS_ISA
