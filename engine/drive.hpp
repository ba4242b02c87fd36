// The element loop: the rule and the stages around it, on tiles of whatever is stored.
#pragma once

#include <limits>
#include <utility>

#include "observe.hpp"
#include "reduce.hpp"

namespace adamas::ADAMAS_ISA {

// A step that nobody looks at.
struct Unseen {};

// One that is looked at. before: where the parameters go as they were.
template <class T>
struct Watch {
    T* before;
    Seen<T>* seen;
};

// Steps what a source has, tile by tile, in memory that does not overlap (work.cpp checks). Flattened: the rule must be
// inlined, though it is used in many places.
template <template <class> class Rule, class T, class Source, class Look, class... State>
[[gnu::flatten]] void loop(const Coefficients& c, Source& source, const Look look, State... state) {
    constexpr bool looks = std::is_same_v<Look, Watch<T>>, rated = looks && has_rate<Rule<T>>;
    const Step<Rule, T> one(c, source.whole());
    const Step<Rule, Wide<T>> many(c, source.whole());
    // p and g are copies, which live in registers.
    source.each([&]([[maybe_unused]] std::size_t start, std::size_t n, auto p, auto g) {
        const auto step_at = [&](auto number, std::size_t k, auto count, [[maybe_unused]] const auto& look_at) {
            using N = decltype(number);
            if constexpr ((State::asks_ahead || ...)) {
                p.ask_ahead(k);
                g.ask_ahead(k);
            }
            const N p_k = p.template read<N>(k, count), given = g.template read<N>(k, count);
            const auto& step = pick<N>(one, many);
            const N g_k = step.template gradient<Source::has_stages>(given, p_k);
            [[maybe_unused]] N rate{};
            const N change = [&](auto... s) {
                const N moved = step.rule.change(p_k, g_k, s...);
                if constexpr (rated) rate = step.rule.rate(s...);
                (state.write(k, s, count), ...);
                return step.frozen ? N{} : moved;
            }(state.template read<N>(k, count)...);
            const N p_next = p_k - step.template finished<Source::has_stages>(change, p_k, g_k);
            p.write(k, p_next, count);
            if constexpr (looks) {
                write_to(look.before + k, p_k);
                look_at(given, p_k, p_next, rate);
            }
        };
        (state.open(start, n), ...);
        if constexpr (looks) {
            *look.seen = {};
            add_all<T>(*look.seen, n, 0, [&](Seen<T>& seen, auto number, std::size_t k, auto place) {
                step_at(number, k, All{}, [&](auto... numbers) { seen.template add<rated>(place, numbers...); });
            });
        } else {
            each_wide<T>(n, [&](auto number, std::size_t k, auto count) { step_at(number, k, count, nullptr); });
        }
        (state.close(start, n), ...);
    });
    (state.finish(), ...);
}

// find(i): state array i, which may be of different types.
template <template <class> class Rule, class T, class Source, class Look, class Find, std::size_t... i>
void dense(const Coefficients& c, Source& source, const Look& look, [[maybe_unused]] const Find& find,
           std::index_sequence<i...>) {
    loop<Rule, T>(c, source, look, find(std::integral_constant<std::size_t, i>{})...);
}

template <template <class> class Rule, class T, class Source, class Look, class Find>
void dense(const Coefficients& c, Source& source, const Look& look, const Find& find) {
    dense<Rule, T>(c, source, look, find, std::make_index_sequence<words(Rule<T>::state_names)>{});
}

// Where the loop has parameters and gradients from: each(visit) calls visit(start, n, p, g) for each tile. has_stages:
// whether there may be others than weight decay.

// Elements begin to end of parameters and gradients where they are, `length` in each tile. Array: Kept or Halves.
template <class Array>
struct InPlace {
    static constexpr bool has_stages = false;
    std::size_t begin, end, length;
    Array p, g;

    Whole whole() const { return {}; }

    template <class Visit>
    [[gnu::always_inline]] void each(const Visit& visit) {
        for (std::size_t start = begin; start < end; start += length) {
            const std::size_t n = end - start < length ? end - start : length;
            p.open(start, n);
            g.open(start, n);
            visit(start, n, p, g);
        }
    }
};

template <class T>
InPlace<Kept<T>> in_place(const Block& block, std::size_t begin, std::size_t end, std::size_t length) {
    return {begin, end, length, Kept<T>(static_cast<T*>(block.p.data)), Kept<T>(static_cast<T*>(block.g.data))};
}

template <class S>
InPlace<Halves<S, false>> in_place_halves(const Block& block, std::size_t begin, std::size_t end) {
    const bool at_random = block.stochastic && std::is_same_v<S, BFloat16>;
    return {begin, end, tile, {block.p.data, dice_of(block, 0), at_random}, {block.g.data, dice_of(block, 0), false}};
}

// Returns how many of n elements lie before the first cache line. Large NumPy arrays begin 16 bytes into one, all of
// them alike, so every wide load and store would touch two lines; small arrays are not worth the detour.
template <class T>
std::size_t to_cache_line(const T* first, std::size_t n) {
    constexpr std::size_t line = 64, worth = 1024;
    const std::size_t inside = reinterpret_cast<std::uintptr_t>(first) % line;
    return n < worth || inside % sizeof(T) != 0 ? 0 : (line - inside) % line / sizeof(T);
}

// Whether parameters and gradients are of a type and lie one after the other, and nothing follows a step.
inline bool is_simple(const Block& block, Type type) {
    return block.p.type == type && block.g.type == type && !block.p.view && !block.g.view && !block.slots->average &&
           !block.slots->copy && !block.zero;
}

inline bool has_stages(const Coefficients& c) {
    return c.clip < std::numeric_limits<double>::infinity() || c.reduces();
}

// The parameters and gradients of elements begin to end of a block, tile by tile, in whatever format they are stored,
// and what there is to do with each around the rule. observed: whether somebody looks.
template <bool observed, class T>
class Tiles {
public:
    static constexpr bool has_stages = true;
    static constexpr std::size_t length = observed ? long_tile : tile;

    Tiles(const Block& block, std::size_t begin, std::size_t end)
        : block_(block),
          begin_(begin),
          end_(end),
          first_(length - before_cache_line(block, begin, end)),
          simple_(!observed && is_simple(block, native<T>)),
          rounds_(block.p.type != native<T>) {}

    // What the stages that look at the whole array multiply changes by; its sums are known.
    Whole whole() const { return block_.whole; }

    // Calls visit(start, n, p, g) for each.
    template <class Visit>
    [[gnu::always_inline]] void each(const Visit& visit) {
        std::size_t n = first_;
        for (std::size_t start = begin_; start < end_; start += n, n = length) {
            if (end_ - start < n) n = end_ - start;
            Kept<T> p(static_cast<T*>(block_.p.data) + start), g(static_cast<T*>(block_.g.data) + start);
            if (!simple_) {
                open(start, n);
                p.at = p_;
                g.at = g_;
            }
            visit(start, n, p, g);
            if (!simple_) close(start, n);
        }
    }

    Watch<T> watch() { return {before_, &seen_}; }

private:
    // How much shorter the first tile is, so that the next ones begin with a cache line: only where all that is stored
    // may be cut anywhere.
    static std::size_t before_cache_line(const Block& block, std::size_t begin, std::size_t end) {
        const bool plain = block.p.type == native<T> && !block.p.view && block.slots->state_type == native<T>;
        if (observed || !plain) return 0;
        const std::size_t head = to_cache_line(static_cast<T*>(block.p.data) + begin, end - begin);
        return head > 0 ? 64 / sizeof(T) - head : 0;
    }

    [[gnu::noinline]] void open(std::size_t start, std::size_t n) {
        p_ = tile_of(block_.p, start, n, p_tile_);
        g_ = tile_of(block_.g, start, n, g_tile_);
    }

    // What follows the step.
    [[gnu::noinline]] void close(std::size_t start, std::size_t n) {
        const Coefficients& c = *block_.coefficients;
        const Slots& slots = *block_.slots;
        if (rounds_ || block_.p.view) {
            const Dice dice(c.key, slots.first, 0);
            store<false>(p_, block_.p, start, n, block_.stochastic ? &dice : nullptr);
            const bool is_seen = observed || slots.average || slots.copy;
            if (is_seen && rounds_) load(block_.p, start, n, p_);  // as it is
        }
        if (slots.average) {
            const Average<T> ema(c.ema);
            T* const average = static_cast<T*>(slots.average) + start;
            ADAMAS_INDEPENDENT
            for (std::size_t k = 0; k < n; ++k) average[k] = lerp(average[k], p_[k], ema);
        }
        if (slots.copy) store<false>(p_, Operand{slots.copy, slots.copy_type, nullptr}, start, n);
        if constexpr (observed) observe(start, n);
        if (block_.zero) clear(block_.g, start, n);
    }

    void observe(std::size_t start, std::size_t n) {
        const T scale = static_cast<T>(block_.coefficients->scale), clip = static_cast<T>(block_.coefficients->clip);
        Statistics& to = block_.statistics[start / sum_block];
        if (rounds_) seen_.replace_params(n, before_, p_);  // which were not seen as they were rounded
        if (!observer_.add(seen_, n, g_, before_, p_) || std::is_same_v<T, double>)
            for (std::size_t k = 0; k < n; ++k) to.nonfinite += !(abs(g_[k]) <= std::numeric_limits<T>::max());
        if (clip < std::numeric_limits<T>::infinity())
            for (std::size_t k = 0; k < n; ++k) to.clipped += abs(scale * g_[k]) > clip;
        const std::size_t next = start + n;
        if (next % sum_block == 0 || next == block_.size) observer_.finish(to);
    }

    const Block& block_;
    const std::size_t begin_, end_, first_;
    const bool simple_;
    const bool rounds_;  // the parameters, when it stores them
    T *p_ = nullptr, *g_ = nullptr;
    alignas(wide_bytes) T p_tile_[length], g_tile_[length], before_[length];
    Seen<T> seen_;
    Observer<T> observer_;
};

template <template <class> class Rule, bool observed, class T>
void drive_tiles(const Block& block, std::size_t begin, std::size_t end) {
    constexpr std::size_t states = words(Rule<T>::state_names);
    const Coefficients& c = *block.coefficients;
    const Slots& slots = *block.slots;
    Tiles<observed, T> tiles(block, begin, end);
    if constexpr (!observed && std::is_same_v<T, float>) {
        [[maybe_unused]] Coding room[states + 1];
        const auto coded = [&](auto i) {
            return Coded<is_nonnegative<Rule<T>>(i)>(Q8(slots.state[i], block.size), dice_of(block, i + 1), room[i]);
        };
        const auto halves = [&](auto i) {
            return Halves<BFloat16, true>(slots.state[i], dice_of(block, i + 1), block.stochastic);
        };
        const auto kept = [&](auto i) { return Kept<T>(static_cast<T*>(slots.state[i])); };
        if (is_simple(block, Type::bfloat16) && !has_stages(c)) {
            auto memory = in_place_halves<BFloat16>(block, begin, end);
            if (slots.state_type == Type::q8) return dense<Rule, T>(c, memory, Unseen{}, coded);
            if (slots.state_type == Type::bfloat16) return dense<Rule, T>(c, memory, Unseen{}, halves);
            return dense<Rule, T>(c, memory, Unseen{}, kept);
        }
        if (is_simple(block, Type::float16) && !has_stages(c) && slots.state_type != Type::q8) {
            auto memory = in_place_halves<Float16>(block, begin, end);
            if (slots.state_type == Type::bfloat16) return dense<Rule, T>(c, memory, Unseen{}, halves);
            return dense<Rule, T>(c, memory, Unseen{}, kept);
        }
        if (is_simple(block, Type::float32) && !has_stages(c) && slots.state_type == Type::q8) {
            auto memory = in_place<T>(block, begin, end, tile);
            return dense<Rule, T>(c, memory, Unseen{}, coded);
        }
        if (slots.state_type == Type::q8) return dense<Rule, T>(c, tiles, Unseen{}, coded);
        if (slots.state_type == Type::bfloat16) return dense<Rule, T>(c, tiles, Unseen{}, halves);
    }
    alignas(wide_bytes) T room[states + 1][tiles.length];
    const auto tiled = [&](auto i) { return Tiled<is_nonnegative<Rule<T>>(i), T>(block, i, room[i]); };
    if constexpr (observed) {
        dense<Rule, T>(c, tiles, tiles.watch(), tiled);
    } else {
        dense<Rule, T>(c, tiles, Unseen{}, tiled);
    }
}

template <template <class> class Rule, class T>
void drive_rows(const Block& block, std::size_t begin, std::size_t end);

template <template <class> class Rule, class T>
void drive(const Block& block, std::size_t begin, std::size_t end) {
    if (block.rows) return drive_rows<Rule, T>(block, begin, end);
    const Slots& slots = *block.slots;
    if (block.statistics) return drive_tiles<Rule, true, T>(block, begin, end);
    if (!is_simple(block, native<T>) || has_stages(*block.coefficients) || slots.state_type != native<T>)
        return drive_tiles<Rule, false, T>(block, begin, end);
    const auto step = [&](std::size_t from, std::size_t to) {
        auto memory = in_place<T>(block, from, to, to - from);
        dense<Rule, T>(*block.coefficients, memory, Unseen{},
                       [&](auto i) { return Kept<T>(static_cast<T*>(slots.state[i])); });
    };
    const std::size_t head = to_cache_line(static_cast<T*>(block.p.data) + begin, end - begin);
    if (head > 0) step(begin, begin + head);
    step(begin + head, end);
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
