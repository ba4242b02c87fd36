// Compiled once per instruction set (ADAMAS_ISA, ADAMAS_ISA_NAME) into a table of kernels.
#include "columns.hpp"
#include "drive.hpp"
#include "lapse.hpp"
#include "move.hpp"
#include "norm.hpp"

namespace adamas::ADAMAS_ISA {

template <template <class> class... Rule>
const Table& tabulate(List<Rule...>) {
    static constexpr RuleInfo rules[] = {{
        Rule<float>::name,
        Rule<float>::state_names,
        Rule<float>::coefficients,
        has_rate<Rule<float>>,
        drive<Rule, float>,
        drive<Rule, double>,
        sum_up<Rule, float>,
        sum_up<Rule, double>,
        step_columns<Rule>,
    }...};
    static constexpr Table all = {ADAMAS_ISA_NAME, rules, sizeof...(Rule), squares, whole_of, lapse, move};
    return all;
}

const Table& table() {
    return tabulate(Rules{});
}

}  // namespace adamas::ADAMAS_ISA
