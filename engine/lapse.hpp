// What steps without a gradient did to a row of a table, all at once: to the parameters, and to the state.
#pragma once

#include "tiles.hpp"

namespace adamas::ADAMAS_ISA {

// Evaluates a polynomial of so many coefficients, the constant one first.
template <int terms>
float horner(const float* coefficients, float x) {
    float sum = coefficients[terms - 1];
    for (int k = terms - 2; k >= 0; --k) sum = sum * x + coefficients[k];
    return sum;
}

// Adds what the steps of one piece changed, for a mean gradient of 1, given the roots of the mean squares.
template <int terms>
void add_piece(const Piece& piece, float epsilon, std::size_t n, const float* roots, float* changes) {
    constexpr float least = 1.2e-38f;
    const float center = piece.center;
    ADAMAS_INDEPENDENT
    for (std::size_t k = 0; k < n; ++k) {
        const float root = roots[k] * center, denominator = root + epsilon;
        const float y = denominator > least ? 1.0f / denominator : 0.0f;
        changes[k] = changes[k] + y * horner<terms>(piece.coefficients, (root - epsilon) * y);
    }
}

inline void add_piece(const Piece& piece, float epsilon, std::size_t n, const float* roots, float* changes) {
    switch (piece.terms) {
        case 1:
            return add_piece<1>(piece, epsilon, n, roots, changes);
        case 4:
            return add_piece<4>(piece, epsilon, n, roots, changes);
        case 8:
            return add_piece<8>(piece, epsilon, n, roots, changes);
        case 12:
            return add_piece<12>(piece, epsilon, n, roots, changes);
        default:
            return add_piece<16>(piece, epsilon, n, roots, changes);
    }
}

// Applies a lapse to elements of a row: p, and the state that is not null, stored as `type`.
inline void lapse(const Lapse& lapse, std::size_t size, float* p, void* m, void* v, const void* v_max, Type type) {
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
                    add_piece(lapse.pieces[i], lapse.epsilon, n, roots, changes);
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
