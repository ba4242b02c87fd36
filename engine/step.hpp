// A rule and the stages around it with the numbers of one step, in the order of `step` in rules.py. N is a number, or
// as many as are wide.
#pragma once

#include <limits>
#include <utility>

#include "state.hpp"

namespace adamas::ADAMAS_ISA {

// Whether a rule has an effective learning rate.
template <class Rule>
constexpr bool has_rate = requires { &Rule::rate; };

template <class T>
auto agrees(T change, T g) {
    return sign(g) * change > 0;
}

template <template <class> class Rule, class N>
struct Step {
    Rule<N> rule;
    N scale, bound{}, weight, mask{}, factor{};
    Condition clips = false, coupled, decoupled, frozen, cautious = false, shortens = false;

    explicit Step(const Coefficients& c, const Whole& whole = {})
        : rule(make(c.rule, std::make_index_sequence<words(Rule<N>::coefficients)>{})),
          scale(all(c.scale)),
          bound(all(c.clip)),
          weight(all(c.l2 != 0 ? c.l2 : c.decay)),
          mask(all(whole.mask)),
          factor(all(whole.factor)),
          clips(c.clip < std::numeric_limits<double>::infinity()),
          coupled(c.l2 != 0),
          decoupled(c.decay != 0),
          frozen(c.frozen),
          cautious(c.cautious),
          shortens(whole.factor != 1) {}

    // For numbers with coefficients of their own, and no stages but weight decay.
    Step(const Rule<N>& rule, N l2, N decay, bool frozen)
        : rule(rule),
          scale(all(1)),
          weight(l2[0] != 0 ? l2 : decay),
          coupled(l2[0] != 0),
          decoupled(decay[0] != 0),
          frozen(frozen) {}

    // The gradient as the rule gets it. has_stages: whether it may have to be clipped.
    template <bool has_stages>
    [[gnu::always_inline]] N gradient(N g, N p) const {
        g = scale * g;
        if constexpr (has_stages)
            if (clips) g = clamp(g, bound);
        return coupled ? contain(g + weight * p, g) : g;
    }

    // What becomes of the change by the rule. has_stages: whether there may be stages that look at the whole array.
    template <bool has_stages>
    [[gnu::always_inline]] N finished(N change, N p, N g) const {
        if constexpr (has_stages)
            if (cautious) change = agrees(change, g) ? mask * change : N{};
        if (decoupled) change = change + weight * p;
        if constexpr (has_stages)
            if (shortens) change = factor * contain(change, g);
        return change;
    }

private:
    static N all(double x) { return ADAMAS_ISA::all<N>(static_cast<One<N>>(x)); }

    template <std::size_t... c>
    static Rule<N> make([[maybe_unused]] const double* coefficients, std::index_sequence<c...>) {
        return {coefficients[c]...};
    }
};

}  // namespace adamas::ADAMAS_ISA
