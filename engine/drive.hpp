// The only element loop: load a tile, apply the stages and the rule, store.
#pragma once

#include <cstring>
#include <utility>

#include "engine.hpp"
#include "rules.hpp"

// The iterations of the loop that follows do not depend on each other.
#ifdef __clang__
#define ADAMAS_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define ADAMAS_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace adamas::ADAMAS_ISA {

constexpr std::size_t tile = 1024;  // elements that a strided or converted array is copied through

constexpr std::size_t words(const char* text) {
    std::size_t count = *text ? 1 : 0;
    for (; *text; ++text) count += *text == ' ';
    return count;
}

enum class Decay { none, coupled, decoupled };

// Dense arrays of the same type. The arrays do not overlap (plan.cpp checks), so its iterations are independent.
template <Decay decay, template <class> class Rule, class T, std::size_t... i>
void loop(const Rule<T> rule, T scale, T rate, std::size_t n, T* p, const T* g, void* const* states,
          std::index_sequence<i...>) {
    T* const state[] = {static_cast<T*>(states[i])..., nullptr};
    ADAMAS_INDEPENDENT
    for (std::size_t k = 0; k < n; ++k) {
        const T p_k = p[k];
        T g_k = scale * g[k];
        if constexpr (decay == Decay::coupled) g_k = g_k + rate * p_k;
        T change = rule.change(p_k, g_k, state[i][k]...);
        if constexpr (decay == Decay::decoupled) change = change + rate * p_k;
        p[k] = p_k - change;
    }
}

// Calls row(address, stride, count) for each run along the last axis that makes up elements begin to begin + n.
template <class Row>
void rows(const View& view, std::size_t begin, std::size_t n, const Row& row) {
    if (view.axes == 0) return row(view.data, std::int64_t{0}, n);
    const std::size_t last = view.axes - 1;
    const auto length = static_cast<std::size_t>(view.shape[last]);
    const std::int64_t stride = view.strides[last];
    while (n > 0) {
        std::size_t rest = begin / length;
        const std::size_t column = begin % length;
        char* address = view.data + static_cast<std::int64_t>(column) * stride;
        for (std::size_t axis = last; axis-- > 0;) {
            const auto extent = static_cast<std::size_t>(view.shape[axis]);
            address += static_cast<std::int64_t>(rest % extent) * view.strides[axis];
            rest /= extent;
        }
        const std::size_t count = n < length - column ? n : length - column;
        row(address, stride, count);
        begin += count;
        n -= count;
    }
}

// Copies elements of a view of type S, perhaps unaligned, to or from a tile.
template <class S, class T>
void gather(const View& view, std::size_t begin, std::size_t n, T* to) {
    rows(view, begin, n, [&](const char* address, std::int64_t stride, std::size_t count) {
        for (; count > 0; --count, address += stride) {
            S x;
            std::memcpy(&x, address, sizeof x);
            *to++ = static_cast<T>(x);
        }
    });
}

template <class T>
void scatter(const View& view, std::size_t begin, std::size_t n, const T* from) {
    rows(view, begin, n, [&](char* address, std::int64_t stride, std::size_t count) {
        for (; count > 0; --count, address += stride) std::memcpy(address, from++, sizeof(T));
    });
}

template <class T>
void load(const View& view, std::size_t begin, std::size_t n, T* to) {
    view.type == Type::float32 ? gather<float>(view, begin, n, to) : gather<double>(view, begin, n, to);
}

template <template <class> class Rule, class T, std::size_t... c>
Rule<T> make([[maybe_unused]] const double* coefficients, std::index_sequence<c...>) {
    return {coefficients[c]...};
}

template <template <class> class Rule, class T>
void dense(const Coefficients& c, std::size_t n, T* p, const T* g, void* const* state) {
    constexpr auto states = std::make_index_sequence<words(Rule<T>::state_names)>{};
    const auto rule = make<Rule, T>(c.rule, std::make_index_sequence<words(Rule<T>::coefficients)>{});
    const auto scale = static_cast<T>(c.scale);
    if (c.l2 != 0) {
        loop<Decay::coupled>(rule, scale, static_cast<T>(c.l2), n, p, g, state, states);
    } else if (c.decay != 0) {
        loop<Decay::decoupled>(rule, scale, static_cast<T>(c.decay), n, p, g, state, states);
    } else {
        loop<Decay::none>(rule, scale, T{}, n, p, g, state, states);
    }
}

// Returns how many of n elements lie before the first cache line. Large NumPy arrays begin 16 bytes into one, all of
// them alike, so every wide load and store would touch two lines; small arrays are not worth the detour.
template <class T>
std::size_t to_cache_line(const T* first, std::size_t n) {
    constexpr std::size_t line = 64, worth = 1024;
    const std::size_t inside = reinterpret_cast<std::uintptr_t>(first) % line;
    return n < worth || inside % sizeof(T) != 0 ? 0 : (line - inside) % line / sizeof(T);
}

template <template <class> class Rule, class T>
void drive(const Block& block, std::size_t begin, std::size_t end) {
    void* state[max_state];
    const auto from = [&](std::size_t start) {
        for (std::size_t i = 0; i < words(Rule<T>::state_names); ++i)
            state[i] = static_cast<T*>(block.state[i]) + start;
    };
    T* const p = static_cast<T*>(block.p);
    const T* const g = static_cast<const T*>(block.g);
    if (!block.p_view && !block.g_view) {
        if (const std::size_t head = to_cache_line(p + begin, end - begin); head > 0) {
            from(begin);
            dense<Rule, T>(*block.coefficients, head, p + begin, g + begin, state);
            begin += head;
        }
        from(begin);
        return dense<Rule, T>(*block.coefficients, end - begin, p + begin, g + begin, state);
    }
    T p_tile[tile], g_tile[tile];
    for (std::size_t start = begin; start < end; start += tile) {
        const std::size_t n = end - start < tile ? end - start : tile;
        if (block.p_view) load(*block.p_view, start, n, p_tile);
        if (block.g_view) load(*block.g_view, start, n, g_tile);
        from(start);
        dense<Rule, T>(*block.coefficients, n, block.p_view ? p_tile : p + start, block.g_view ? g_tile : g + start,
                       state);
        if (block.p_view) scatter(*block.p_view, start, n, p_tile);
    }
}

}  // namespace adamas::ADAMAS_ISA
