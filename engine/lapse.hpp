// What steps without a gradient did to a row of a table, all at once: to the parameters, and to the state.
#pragma once

#include "tiles.hpp"

namespace adamas::ADAMAS_ISA {

// Evaluates the polynomial of a piece at tau = 1 + w. Where roots are far above epsilon, as they mostly are, w is
// almost 0, so that the first coefficient, the value there, comes through as it is.
template <int terms>
float evaluate(const float* coefficients, float w) {
    if constexpr (terms == 1) return coefficients[0];
    const float tau = 1.0f + w;
    float sum = coefficients[terms - 1];
    for (int k = terms - 2; k > 0; --k) sum = sum * tau + coefficients[k];
    return coefficients[0] + w * sum;
}

// Adds what the steps of one piece changed, for a mean gradient of 1, given the roots of the mean squares.
template <int terms>
void add_piece(const Piece& piece, float epsilon, std::size_t n, const float* roots, float* changes) {
    constexpr float least = 1.2e-38f;
    const float center = piece.center;
    ADAMAS_INDEPENDENT
    for (std::size_t k = 0; k < n; ++k) {
        const float denominator = roots[k] * center + epsilon;
        const float y = denominator > least ? 1.0f / denominator : 0.0f;
        changes[k] = changes[k] + y * evaluate<terms>(piece.coefficients, -2.0f * epsilon * y);
    }
}

// Applies a lapse of one piece to a row whose state is stored as it is: the most frequent case, in one loop.
template <int terms>
void lapse_at_once(const Lapse& lapse, std::size_t n, float* p, float* m, float* v, const float* v_max) {
    constexpr float least = 1.2e-38f;
    const Piece piece = lapse.pieces[0];
    const float lost = lapse.lost, kept = lapse.kept, epsilon = lapse.epsilon;
    const float m_factor = lapse.m_factor, v_factor = lapse.v_factor;
    const float* const squares = v_max ? v_max : v;
    ADAMAS_INDEPENDENT
    for (std::size_t k = 0; k < n; ++k) {
        const float denominator = sqrt(squares[k]) * piece.center + epsilon;
        const float y = denominator > least ? 1.0f / denominator : 0.0f;
        const float change = m[k] * kept * (y * evaluate<terms>(piece.coefficients, -2.0f * epsilon * y));
        p[k] = p[k] + (lost * p[k] - change);
        m[k] = m[k] * m_factor;
        v[k] = v[k] * v_factor;
    }
}

// Calls visit with the number of terms of a piece, as a constant.
template <class Visit>
void with_terms(int terms, const Visit& visit) {
    switch (terms) {
        case 1:
            return visit(std::integral_constant<int, 1>{});
        case 4:
            return visit(std::integral_constant<int, 4>{});
        case 8:
            return visit(std::integral_constant<int, 8>{});
        case 12:
            return visit(std::integral_constant<int, 12>{});
        default:
            return visit(std::integral_constant<int, 16>{});
    }
}

// Applies a lapse to elements of a row: p, and the state that is not null, stored as `type`.
inline void lapse(const Lapse& lapse, std::size_t size, float* p, void* m, void* v, const void* v_max, Type type) {
    if (m && lapse.adaptive && lapse.count == 1 && type == Type::float32)
        return with_terms(lapse.pieces[0].terms, [&](auto terms) {
            lapse_at_once<terms.value>(lapse, size, p, static_cast<float*>(m), static_cast<float*>(v),
                                       static_cast<const float*>(v_max));
        });
    float m_tile[tile], v_tile[tile], roots[tile], changes[tile];
    for (std::size_t start = 0; start < size; start += tile) {
        const std::size_t n = size - start < tile ? size - start : tile;
        const Operand m_kept{m, type, nullptr}, v_kept{v, type, nullptr};
        float* const m_now = m ? tile_of(m_kept, start, n, m_tile) : nullptr;
        float* const v_now = v ? tile_of(v_kept, start, n, v_tile) : nullptr;
        if (m) {
            for (std::size_t k = 0; k < n; ++k) changes[k] = lapse.adaptive ? 0.0f : lapse.linear;
            if (lapse.adaptive) {
                if (v_max) load(Operand{const_cast<void*>(v_max), type, nullptr}, start, n, roots);
                const float* const squares = v_max ? roots : v_now;
                for (std::size_t k = 0; k < n; ++k) roots[k] = sqrt(squares[k]);
                for (std::size_t i = 0; i < lapse.count; ++i)
                    with_terms(lapse.pieces[i].terms, [&](auto terms) {
                        add_piece<terms.value>(lapse.pieces[i], lapse.epsilon, n, roots, changes);
                    });
            }
            ADAMAS_INDEPENDENT
            for (std::size_t k = 0; k < n; ++k) {
                const float change = m_now[k] * lapse.kept * changes[k];
                p[start + k] = p[start + k] + (lapse.lost * p[start + k] - change);
                m_now[k] = m_now[k] * lapse.m_factor;
            }
            if (type != Type::float32) store<true>(m_now, m_kept, start, n);
        } else if (lapse.lost != 0) {
            for (std::size_t k = 0; k < n; ++k) p[start + k] = p[start + k] + lapse.lost * p[start + k];
        }
        if (v) {
            for (std::size_t k = 0; k < n; ++k) v_now[k] = v_now[k] * lapse.v_factor;
            if (type != Type::float32) store<true>(v_now, v_kept, start, n);
        }
    }
}

}  // namespace adamas::ADAMAS_ISA
