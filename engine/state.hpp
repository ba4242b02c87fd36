// The state of a tile, in whatever format it is stored: found or read, and written.
#pragma once

#include "q8.hpp"

namespace adamas::ADAMAS_ISA {

constexpr std::size_t words(const char* text) {
    std::size_t count = *text ? 1 : 0;
    for (; *text; ++text) count += *text == ' ';
    return count;
}

// Whether word i of a text is one of `words`.
constexpr bool is_one_of(const char* text, std::size_t i, const char* words) {
    for (; i > 0; --i)
        while (*text++ != ' ') {
        }
    for (bool begins = true; *words; begins = *words++ == ' ') {
        std::size_t k = 0;
        while (begins && text[k] && text[k] != ' ' && text[k] == words[k]) ++k;
        const bool ends = !text[k] || text[k] == ' ';
        if (begins && ends && (!words[k] || words[k] == ' ')) return true;
    }
    return false;
}
static_assert(is_one_of("m v", 1, nonnegative) && is_one_of("m v v_max", 2, nonnegative));
static_assert(!is_one_of("m v", 0, nonnegative) && !is_one_of("v_", 0, nonnegative));

// Whether the numbers of state array i of a rule are never negative.
template <class Rule>
constexpr bool is_nonnegative(std::size_t i) {
    if constexpr (requires { Rule::nonnegative; }) {
        return is_one_of(Rule::state_names, i, Rule::nonnegative);
    } else {
        return is_one_of(Rule::state_names, i, nonnegative);
    }
}

// Calls visit(sign, i) for each state array of a rule; sign::value says whether it is never negative.
template <class Rule, class Visit, std::size_t... i>
void each_state(const Visit& visit, std::index_sequence<i...>) {
    (visit(std::bool_constant<is_nonnegative<Rule>(i)>{}, i), ...);
}
template <class Rule, class Visit>
void each_state(const Visit& visit) {
    each_state<Rule>(visit, std::make_index_sequence<words(Rule::state_names)>{});
}

// Numbers of a state array, stored one by one as S, which the loop of a rule reads and changes.
template <class S>
struct Kept {
    S* at;

    template <class N, class Count = All>
    [[gnu::always_inline]] N read(std::size_t k, Count count = {}) const {
        if constexpr (std::is_same_v<S, One<N>>) {
            return read_as<N>(at + k, count);
        } else {
            return from_bits(read_short(&at[k].bits, count) << 16);
        }
    }
    template <class N, class Count = All>
    [[gnu::always_inline]] void write(std::size_t k, const N& x, Count count = {}) const {
        if constexpr (std::is_same_v<S, One<N>>) {
            write_to(at + k, x, count);
        } else {
            write_short(&at[k].bits, round_to_bfloat16<true>(x, nearest(x)), count);
        }
    }
};

// State that is read and stays as it is.
template <class S>
struct Fixed : Kept<S> {
    template <class N>
    [[gnu::always_inline]] void write(std::size_t, const N&) const {}
};

// A block of state in bfloat16, rounded at random.
struct Thrown {
    BFloat16* at;
    Randoms randoms;

    template <class N, class Count = All>
    [[gnu::always_inline]] N read(std::size_t k, Count count = {}) const {
        return Kept<BFloat16>{at}.template read<N>(k, count);
    }
    template <class N, class Count = All>
    [[gnu::always_inline]] void write(std::size_t k, const N& x, Count count = {}) const {
        write_short(&at[k].bits, round_to_bfloat16<true>(x, randoms.at<Bits>(k) >> 16), count);
    }
};

// Where the elements of a tile are: in the operand itself, if that holds T densely, else in `copy`.
template <class T>
T* tile_of(const Operand& operand, std::size_t start, std::size_t n, T* copy) {
    if (operand.type == native<T> && !operand.view) return static_cast<T*>(operand.data) + start;
    load(operand, start, n, copy);
    return copy;
}

// Finds the state of elements start to start + n, or reads it into tiles.
template <class Rule, class T>
void load_state(const Block& block, std::size_t start, std::size_t n, T (*tiles)[tile], T** state) {
    const Slots& slots = *block.slots;
    each_state<Rule>([&](auto sign, std::size_t i) {
        state[i] = tiles[i];
        if (slots.state_type == Type::q8) {
            if constexpr (std::is_same_v<T, float>)
                load<sign.value>(Q8(slots.state[i], block.size), start, n, tiles[i]);
        } else {
            state[i] = tile_of(Operand{slots.state[i], slots.state_type, nullptr}, start, n, tiles[i]);
        }
    });
}

// Writes what load_state read.
template <class Rule, class T>
void store_state(const Block& block, std::size_t start, std::size_t n, T (*tiles)[tile]) {
    const Slots& slots = *block.slots;
    if (slots.state_type == native<T>) return;
    each_state<Rule>([&](auto sign, std::size_t i) {
        const Dice dice(block.coefficients->key, slots.first, i + 1);
        if (slots.state_type == Type::q8) {
            if constexpr (std::is_same_v<T, float>)
                store<sign.value>(tiles[i], Q8(slots.state[i], block.size), start, n, dice);
        } else {
            const Operand kept{slots.state[i], slots.state_type, nullptr};
            store<true>(tiles[i], kept, start, n, block.stochastic ? &dice : nullptr);
        }
    });
}

}  // namespace adamas::ADAMAS_ISA
