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

// What the loop of a rule reads and changes, tile by tile, in the format in which it is stored: open() and close() are
// called before and after each tile, finish() in the end. ask_ahead(k) asks the cache for what lies some tiles behind
// element k; state that asks_ahead has this done for parameters and gradients.
struct Simple {
    static constexpr bool asks_ahead = false;
    void close(std::size_t, std::size_t) {}
    void finish() {}
};

// Numbers of the type of the arithmetic.
template <class T>
struct Kept : Simple {
    T *all, *at;

    explicit Kept(T* all) : all(all), at(all) {}

    [[gnu::always_inline]] void ask_ahead(std::size_t k) const { __builtin_prefetch(at + k + lookahead, 1); }
    void open(std::size_t start, std::size_t) { at = all + start; }

    template <class N, class Count = All>
    [[gnu::always_inline]] N read(std::size_t k, Count count = {}) const {
        return read_as<N>(at + k, count);
    }
    template <class N, class Count = All>
    [[gnu::always_inline]] void write(std::size_t k, const N& x, Count count = {}) const {
        write_to(at + k, x, count);
    }
};

// Numbers in bfloat16 or float16, rounded to the nearest or, to bfloat16 and with dice, at random; element k is written
// after those before it.
template <class S, bool saturates>
struct Halves : Simple {
    S *all, *at;
    Dice dice;
    Condition at_random;
    Deal deal;

    Halves(void* all, const Dice& dice, bool at_random)
        : all(static_cast<S*>(all)), at(this->all), dice(dice), at_random(at_random), deal(Randoms(0, 0)) {}

    [[gnu::always_inline]] void ask_ahead(std::size_t k) const { __builtin_prefetch(at + k + lookahead, 1); }
    void open(std::size_t start, std::size_t) {
        at = all + start;
        if (at_random) deal = dice.block(start);
    }

    template <class N, class Count = All>
    [[gnu::always_inline]] N read(std::size_t k, Count count = {}) const {
        return read_wide(at + k, count);
    }
    template <class N, class Count = All>
    [[gnu::always_inline]] void write(std::size_t k, const N& x, Count count = {}) {
        if constexpr (std::is_same_v<S, BFloat16>) {
            const Bits increment = at_random ? deal() >> 16 : nearest(x);
            write_short(&at[k].bits, round_to_bfloat16<saturates>(x, increment), count);
        } else {
            write_wide(at + k, x, count);
        }
    }
};

// Where the elements of a tile are: in the operand itself, if that holds T densely, else in `copy`.
template <class T>
T* tile_of(const Operand& operand, std::size_t start, std::size_t n, T* copy) {
    if (operand.type == native<T> && !operand.view) return static_cast<T*>(operand.data) + start;
    load(operand, start, n, copy);
    return copy;
}

// Reads state array i of elements start to start + n into a tile.
template <bool nonnegative, class T>
[[gnu::noinline]] void load_state(const Block& block, std::size_t i, std::size_t start, std::size_t n, T* tile) {
    const Slots& slots = *block.slots;
    if constexpr (std::is_same_v<T, float>) {
        if (slots.state_type == Type::q8) {
            const Q8 array(slots.state[i], block.size);
            for (std::size_t k = 0; k < n; k += block_size)
                load<nonnegative>(array, start + k, n - k < block_size ? n - k : block_size, tile + k);
            return;
        }
    }
    load(Operand{slots.state[i], slots.state_type, nullptr}, start, n, tile);
}

// The random numbers that an array is rounded with: the parameters, 0, or a state array, 1 and on.
inline Dice dice_of(const Block& block, std::size_t role) {
    return Dice(block.coefficients->key, block.slots->first, role);
}

// Writes what load_state read.
template <bool nonnegative, class T>
[[gnu::noinline]] void store_state(const Block& block, std::size_t i, std::size_t start, std::size_t n, T* tile) {
    const Slots& slots = *block.slots;
    const Dice dice = dice_of(block, i + 1);
    if (slots.state_type == Type::q8) {
        if constexpr (std::is_same_v<T, float>) {
            const Q8 array(slots.state[i], block.size);
            for (std::size_t k = 0; k < n; k += block_size)
                store<nonnegative>(tile + k, array, start + k, n - k < block_size ? n - k : block_size, dice);
        }
    } else {
        const Operand kept{slots.state[i], slots.state_type, nullptr};
        store<true>(tile, kept, start, n, block.stochastic ? &dice : nullptr);
    }
}

// State in any format: where it is, if that is of the type of the arithmetic, else by way of a tile.
template <bool nonnegative, class T>
struct Tiled : Kept<T> {
    const Block* block;
    std::size_t i;
    T* tile;
    bool converts;

    Tiled(const Block& block, std::size_t i, T* tile)
        : Kept<T>(static_cast<T*>(block.slots->state[i])),
          block(&block),
          i(i),
          tile(tile),
          converts(block.slots->state_type != native<T>) {}

    void open(std::size_t start, std::size_t n) {
        this->at = converts ? tile : this->all + start;
        if (converts) load_state<nonnegative>(*block, i, start, n, tile);
    }
    void close(std::size_t start, std::size_t n) {
        if (converts) store_state<nonnegative>(*block, i, start, n, tile);
    }
};

}  // namespace adamas::ADAMAS_ISA
