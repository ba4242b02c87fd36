// Steps runs side by side, each with coefficients of its own: where a loop has one rule for all elements, here there is
// one for as many runs as are wide.
#pragma once

#include <utility>

#include "step.hpp"

namespace adamas::ADAMAS_ISA {

template <template <class> class Rule, std::size_t... c, std::size_t... i>
[[gnu::flatten]] void step_columns(const Columns& of, std::index_sequence<c...>, std::index_sequence<i...>) {
    using N = Wide<double>;
    const std::size_t runs = of.runs;
    const double *const l2 = of.numbers + sizeof...(c) * runs, *const decay = l2 + runs, *const frozen = decay + runs;
    each_wide<double>(runs, [&](auto, std::size_t run, auto count) {
        const Step<Rule, N> step({read_as<N>(of.numbers + c * runs + run, count)...}, read_as<N>(l2 + run, count),
                                 read_as<N>(decay + run, count), *frozen != 0);
        for (std::size_t k = run; k < of.size * runs; k += runs) {
            const N p_k = read_as<N>(of.p + k, count),
                    g_k = step.template gradient<false>(read_as<N>(of.g + k, count), p_k);
            const N change = [&](auto... s) {
                const N moved = step.rule.change(p_k, g_k, s...);
                (write_to(of.state[i] + k, s, count), ...);
                return step.frozen ? N{} : moved;
            }(read_as<N>(of.state[i] + k, count)...);
            write_to(of.p + k, p_k - step.template finished<false>(change, p_k, g_k), count);
        }
    });
}

template <template <class> class Rule>
void step_columns(const Columns& of) {
    step_columns<Rule>(of, std::make_index_sequence<words(Rule<double>::coefficients)>{},
                       std::make_index_sequence<words(Rule<double>::state_names)>{});
}

}  // namespace adamas::ADAMAS_ISA
