// The only element loop: load a tile, apply the stages and the rule, store.
#pragma once

#include <limits>
#include <utility>

#include "observe.hpp"
#include "reduce.hpp"

namespace adamas::ADAMAS_ISA {

enum class Decay { none, coupled, decoupled };

// The numbers of a step besides the rule's.
template <class N>
struct Around {
    N scale, weight;
    bool frozen;
};

// Steps element k, or as many from there on as N has. rates: where the effective learning rates go, if they are wanted.
template <Decay decay, bool wants_rates, class N, class Rule, class T, class... State>
[[gnu::always_inline]] inline void step(const Rule& rule, const Around<N>& around, std::size_t k, T* p, const T* g,
                                        [[maybe_unused]] T* rates, const State&... state) {
    const N p_k = read_as<N>(p + k);
    N g_k = around.scale * read_as<N>(g + k);
    if constexpr (decay == Decay::coupled) g_k = contain(g_k + around.weight * p_k, g_k);
    const auto moved = [&](auto... s) {
        const N change = rule.change(p_k, g_k, s...);
        if constexpr (wants_rates) write_to(rates + k, rule.rate(s...));
        (state.write(k, s), ...);
        return change;
    }(state.template read<N>(k)...);
    N change = around.frozen ? N{} : moved;
    if constexpr (decay == Decay::decoupled) change = change + around.weight * p_k;
    write_to(p + k, p_k - change);
}

// Dense arrays, which do not overlap (work.cpp checks). Flattened: the rule must be inlined, though it is used in many
// places.
template <Decay decay, bool wants_rates, template <class> class Rule, class T, class... State>
[[gnu::flatten]] void loop(const Coefficients& c, double scale, double weight, std::size_t n, T* p, const T* g,
                           T* rates, const State... state) {
    const auto all_of = [&](auto one, std::size_t k, std::size_t end, std::size_t by) {
        using N = decltype(one);
        const auto rule = make<Rule, N>(c);
        const Around<N> around{all<N>(static_cast<T>(scale)), all<N>(static_cast<T>(weight)), c.frozen};
        for (; k < end; k += by) step<decay, wants_rates>(rule, around, k, p, g, rates, state...);
    };
    const std::size_t whole = n - n % width<T>;
    if (whole > 0) all_of(Wide<T>{}, 0, whole, width<T>);
    if (whole < n) all_of(T{}, whole, n, 1);
}

// find(i): where state array i is, which may be of different types.
template <template <class> class Rule, bool wants_rates, class T, class Find, std::size_t... i>
void dense(const Coefficients& c, double scale, std::size_t n, T* p, const T* g, T* rates,
           [[maybe_unused]] const Find& find, std::index_sequence<i...>) {
    const auto run = [&](auto decay, double weight) {
        loop<decay.value, wants_rates, Rule>(c, scale, weight, n, p, g, rates,
                                             find(std::integral_constant<std::size_t, i>{})...);
    };
    if (c.l2 != 0) return run(std::integral_constant<Decay, Decay::coupled>{}, c.l2);
    if (c.decay != 0) return run(std::integral_constant<Decay, Decay::decoupled>{}, c.decay);
    run(std::integral_constant<Decay, Decay::none>{}, 0.0);
}

template <template <class> class Rule, bool wants_rates = false, class T, class Find>
void dense(const Coefficients& c, double scale, std::size_t n, T* p, const T* g, T* rates, const Find& find) {
    dense<Rule, wants_rates>(c, scale, n, p, g, rates, find,
                             std::make_index_sequence<words(Rule<T>::state_names)>{});
}

// Returns how many of n elements lie before the first cache line. Large NumPy arrays begin 16 bytes into one, all of
// them alike, so every wide load and store would touch two lines; small arrays are not worth the detour.
template <class T>
std::size_t to_cache_line(const T* first, std::size_t n) {
    constexpr std::size_t line = 64, worth = 1024;
    const std::size_t inside = reinterpret_cast<std::uintptr_t>(first) % line;
    return n < worth || inside % sizeof(T) != 0 ? 0 : (line - inside) % line / sizeof(T);
}

// Asks the cache for the tile from start on, if it is dense and ends before `end`. Always inlined: GCC takes a function
// that only prefetches for one without effect, and drops the calls.
[[gnu::always_inline]] inline void prefetch(const Operand& operand, std::size_t start, std::size_t end) {
    if (operand.view || start + tile > end) return;
    const auto size = static_cast<std::size_t>(itemsize(operand.type));
    const char* const data = static_cast<const char*>(operand.data) + start * size;
    constexpr std::size_t line = 64;
    // One line more: few arrays begin with one.
    for (std::size_t offset = 0; offset <= tile * size; offset += line) __builtin_prefetch(data + offset, 1);
}

// Asks the cache for what is some tiles ahead: the work on a tile in q8 is too long for the processor to see so far.
[[gnu::always_inline]] inline void prefetch_ahead(const Block& block, std::size_t states, std::size_t start,
                                                  std::size_t end) {
    constexpr std::size_t ahead = 4 * tile;
    prefetch(block.p, start + ahead, end);
    prefetch(block.g, start + ahead, end);
    for (std::size_t i = 0; i < states; ++i)
        prefetch(Operand{block.slots->state[i], Type::q8, nullptr}, start + ahead, end);
}

// What follows a step of elements start to start + n, whose new values are in p.
template <class T>
void finish(const Block& block, std::size_t start, std::size_t n, T* p) {
    const Coefficients& c = *block.coefficients;
    const Slots& slots = *block.slots;
    if (block.p.type != native<T> || block.p.view) {
        const Dice dice(c.key, slots.first, 0);
        store<false>(p, block.p, start, n, block.stochastic ? &dice : nullptr);
        if (block.p.type != native<T>) load(block.p, start, n, p);  // what follows sees the parameter as it is
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
        dense<Rule>(c, scale, n, p, g, static_cast<float*>(nullptr), [&](auto i) {
            return Coded<is_nonnegative<Rule<float>>(i)>(Q8(slots.state[i], block.size), start, tiles[i]);
        });
        store_state<Rule<float>>(block, start, n, tiles);
        return true;
    }
    if (slots.state_type != Type::bfloat16 || block.stochastic) return false;
    dense<Rule>(c, scale, n, p, g, static_cast<float*>(nullptr),
                [&](auto i) { return Kept<BFloat16>{static_cast<BFloat16*>(slots.state[i]) + start}; });
    return true;
}

template <template <class> class Rule, bool observed, class T>
void drive_tiles(const Block& block, std::size_t begin, std::size_t end) {
    constexpr std::size_t states = words(Rule<T>::state_names);
    constexpr bool wants_rates = observed && has_rate<Rule<T>>;
    const Coefficients& c = *block.coefficients;
    const Slots& slots = *block.slots;
    const bool clips = c.clip < std::numeric_limits<double>::infinity();
    const double scale = clips ? 1.0 : c.scale;  // of what the rule gets
    const auto factor = static_cast<T>(c.scale), bound = static_cast<T>(c.clip);
    const bool coded = slots.state_type == Type::q8, reduces = c.reduces();
    alignas(wide_bytes) T p_tile[tile], g_tile[tile], clipped[tile], state_tiles[states + 1][tile];
    [[maybe_unused]] alignas(wide_bytes) T before[tile], rate_tile[tile];
    [[maybe_unused]] Observer<T> observer;
    T* const rates = wants_rates ? rate_tile : nullptr;
    for (std::size_t start = begin; start < end;) {
        const std::size_t left = end - start, n = left < tile ? left : tile;
        T* const p = tile_of(block.p, start, n, p_tile);
        const T* const given = tile_of(block.g, start, n, g_tile);
        const T* g = given;
        if constexpr (observed) std::memcpy(before, p, n * sizeof(T));
        if (clips) {
            for (std::size_t k = 0; k < n; ++k) clipped[k] = clamp(factor * given[k], bound);
            g = clipped;
        }
        if (coded) prefetch_ahead(block, states, start, end);
        bool stepped = false;
        if constexpr (!observed && std::is_same_v<T, float>) stepped = step_stored<Rule>(block, scale, start, n, p, g, state_tiles);
        if (!stepped) {
            T* state[states + 1] = {};
            load_state<Rule<T>, false>(block, start, n, state_tiles, state);
            if (reduces) {
                step_tile<Rule>(block, n, p, given, state, rates);
            } else {
                dense<Rule, wants_rates>(c, scale, n, p, g, rates, [&](auto i) { return Kept<T>{state[i]}; });
            }
            store_state<Rule<T>>(block, start, n, state_tiles);
        }
        finish(block, start, n, p);
        if constexpr (observed) {
            observer.add(n, before, p, given, factor, bound, rates, [&](std::size_t i) {
                if (i == 0) prefetch(block.p, start + n, end);
                if (i == 1) prefetch(block.g, start + n, end);
                if (i > 1)
                    for (std::size_t k = i - 2; k < states; k += 2)
                        prefetch(Operand{slots.state[k], slots.state_type, nullptr}, start + n, end);
            });
            const std::size_t next = start + n;
            if (next % sum_block == 0 || next == block.size) observer.finish(block.statistics[start / sum_block]);
        }
        if (block.zero) clear(block.g, start, n);
        start += n;
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
                    static_cast<const T*>(block.g.data) + start, static_cast<T*>(nullptr),
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
