// Steps that the rows of a table have missed because they had no gradient, made up for when a row is needed: in closed
// form, at a cost that does not depend on how many there were, or one by one, with the bits of the dense step.
//
// A row that was stepped last in step s, with means m and v then, is in step t = s + k
//
//   p_t = Q p_s - Q m sum_j c_j / (b_j sqrt(v) + epsilon),    j = 1 ... k
//
// where Q is the product of all 1 - decay, c_j the step size times beta1^j over that product up to j, and b_j the
// correction of the root of v times beta2^(j/2). As a function of v the sum is smooth: with x = b sqrt(v) / (b sqrt(v)
// + epsilon) for some b in their midst it is 1 / (b sqrt(v) + epsilon) times sum_j c_j / (1 + x (b_j / b - 1)), whose
// interpolant at n Chebyshev nodes of [0, 1] is right to about 3^-n if all b_j lie in [b/4, 4b]. So the sums at 16
// nodes are kept for each s, terms are added as steps are taken, until what is left is negligible, and rows only
// evaluate a polynomial of few terms; where the b_j spread wider there are several pieces.
#pragma once

#include <string>
#include <vector>

#include "work.hpp"

namespace adamas {

class Lapses {
public:
    // capacity: how many steps back a row may have been stepped last.
    Lapses(const std::string& rule, std::size_t capacity);

    // Whether the steps without a gradient have a closed form for this rule.
    bool closed() const { return form_ != nullptr; }

    std::uint64_t count() const { return count_; }

    // Adds a step: the coefficients and stages of a group, as plans take them.
    void record(nb::handle coefficients, nb::handle stages, std::uint64_t t);

    // Makes up for what rows, or all if None, have missed. p: the table; state: its arrays in the rule's order; last:
    // int32, the step in which each row was stepped last, which becomes the present one. exact: in closed form. Throws
    // std::invalid_argument, with nothing changed, if the arrays are not such.
    void catch_up(nb::handle p, nb::tuple state, nb::handle last, nb::handle rows, bool exact);

    // The steps that are remembered, from `first` on, one in a row; and back again.
    nb::object history(std::uint64_t first) const;
    void restore(std::uint64_t first, nb::handle history);

private:
    struct Step {
        Coefficients coefficients;
        double decayed = 0;       // the sum of the logarithms of 1 - decay up to here
        double largest_rate = 0;  // so far
    };

    // Where the state and the coefficients of a rule with a closed form are.
    struct Form {
        const char* rule;
        int m, v, v_max;                   // arrays of state, -1: none
        const char *step, *beta1, *beta2;  // coefficients, null: none
        const char *root_scale, *epsilon;  // of those that divide by a root
    };

    struct Sums {
        double center;
        double nodes[most_terms] = {};
    };

    // What is known of the steps after s, and what they come to at present.
    struct Program {
        std::uint64_t s = 0, present = 0, terms = 0;
        double grown = 1, beta1_power = 1, root_power = 1, weight = 0;
        double final_rate = -1;  // it is complete for learning rates up to this
        std::vector<Sums> sums;
        std::vector<Piece> pieces;
        std::uint64_t compiled = 0;  // the terms that are in the pieces
        Lapse lapse = {};
    };

    struct Behind {
        std::size_t row;
        std::uint64_t s;
    };

    struct Table;  // what catch_up was given

    const Step& at(std::uint64_t step) const { return steps_[step % capacity_]; }
    double number(const Step& step, int place, double otherwise) const;
    void bring_up(Program& program) const;
    void add_term(Program& program, std::uint64_t step) const;
    bool complete(const Program& program, const Step& latest) const;
    double first_center(double b, const Step& step, const Program& program) const;
    static void compile(Program& program);
    void replay(const Table& table, std::size_t row, std::uint64_t s) const;
    Table read(nb::handle p, nb::tuple state, nb::handle last, nb::handle rows) const;
    void find(const Table& table);
    void bring_up();
    void apply(const Table& table, bool exact) const;

    std::string rule_;
    Work work_;
    const RuleInfo* info_;
    const Form* form_ = nullptr;
    int step_ = -1, beta1_ = -1, beta2_ = -1, root_scale_ = -1, epsilon_ = -1, rate_ = -1, nesterov_ = -1;
    std::size_t capacity_;
    std::uint64_t count_ = 0;
    std::vector<Step> steps_;           // in a ring
    std::vector<Program> programs_;     // by s, in a ring too
    std::vector<std::uint64_t> found_;  // by s: in which search it was found
    std::uint64_t finding_ = 0;
    std::vector<std::uint64_t> needed_;  // each s that was found
    std::vector<Behind> behind_;
};

}  // namespace adamas
