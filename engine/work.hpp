// The blocks of one step, gathered from arrays: what every plan needs between reading its objects and running a rule.
#pragma once

#include <nanobind/nanobind.h>

#include <deque>
#include <string>
#include <vector>

#include "arrays.hpp"

namespace adamas {

namespace nb = nanobind;

// The instruction set that all plans use.
const Table& active_table();
void use_table(const std::string& isa);  // throws std::invalid_argument

// What a step does beside the rule.
struct Options {
    bool average = false;     // keeps an average of each parameter
    bool copy = false;        // keeps a copy of each parameter in another format
    bool zero = false;        // sets gradients to zero
    bool stochastic = false;  // rounds to bfloat16 at random; to q8 it always does
    std::uint64_t seed = 0;

    // From a tuple of Python (see _engine.pyi); throws std::invalid_argument.
    static Options of(nb::handle tuple);
};

class Work {
public:
    Work(const std::string& rule, const Options& options);  // throws std::invalid_argument

    std::size_t slot_count() const { return state_count_ + (options_.average ? 1 : 0) + (options_.copy ? 1 : 0); }

    std::size_t coefficient_count() const { return coefficient_count_; }

    bool zeroes() const { return options_.zero; }

    // The shape of a parameter, and the order in which it is stepped: that of the first array that is remembered of it.
    // False if they do not fit.
    bool read_layout(const Array& param, const Array& model, Layout& to) const;

    // Reads the array of slot i (the rule's state in its order, then the average and the copy, if there are); false if
    // it is not such. Needs no GIL.
    bool read_slot(const Layout& layout, std::size_t i, const Array& array, Slots& to) const;

    // Forgets the last step. Throws std::runtime_error while another thread is in one.
    void begin();

    // Adds the numbers of a group for step t: a dict of the rule's coefficients in its order, and the stages (see
    // rules.py). The reference is good until the next begin(). Throws for anything else.
    const Coefficients& add_coefficients(nb::handle coefficients, nb::handle stages, std::uint64_t t);

    // Adds a block of memory that needs no checks. The slots must stay where they are until the end of the step.
    Block& add_block(const Layout& layout, const Slots& slots, void* p, void* g, const Coefficients* coefficients);

    // Adds an array of this layout, what is remembered of it, and a gradient of the same shape, dense or not; false,
    // with nothing added, if they are not such.
    bool add_arrays(const Layout& layout, const Slots& slots, const Array& p, const Array& g,
                    const Coefficients* coefficients);

    // Adds some rows of an array, all different, with a gradient of each: a matrix in C order.
    bool add_rows(const Layout& layout, const Slots& slots, const Array& p, const Rows& rows, const Array& g,
                  const Coefficients* coefficients);

    // Keeps the owner of an array alive until the end of the step.
    void hold(nb::object owner) { held_.push_back(std::move(owner)); }

    // Adds memory that a step writes beside parameters, for overlaps().
    void add_written(const Extent& extent) { written_.push_back(extent); }

    // Whether two arrays that are written, or a gradient and one of those, may share memory.
    bool overlaps();

    std::size_t blocks() const { return blocks_.size(); }
    Block& block(std::size_t i) { return blocks_[i]; }

    // The norm of all gradients together, before they are scaled, and whether all of them are finite.
    std::pair<double, bool> norm();

    // Multiplies the scale of all gradients.
    void scale(double factor);

    // Steps all blocks; other Python threads run meanwhile if there is enough to do. seen: None, or a list that gets
    // what was seen of each (see _engine.pyi).
    void run(nb::handle seen);

    void drop() { held_.clear(); }

private:
    void observe();  // makes room for the statistics of all blocks
    void report(nb::list to) const;
    const View* view(const Layout& layout, const Array& array);  // how to walk an array that is not dense
    bool small() const;

    std::size_t rule_, coefficient_count_, state_count_;
    Options options_;
    bool running_ = false;  // while the GIL is released

    // Of the current step; kept to save allocations.
    std::deque<Coefficients> coefficients_;
    std::vector<Block> blocks_;
    std::deque<View> views_;
    std::deque<std::vector<std::int64_t>> dimensions_;  // of views_
    std::vector<Extent> written_, grads_;               // the memory that each array covers
    std::vector<Extent> known_, sorted_;                // written_ of the last step without overlaps, and sorted
    std::vector<std::size_t> places_;                   // of grads_ in the last step: the first of sorted_ beyond each
    std::vector<nb::object> held_;                      // arrays in use, so that nobody frees them
    std::vector<Statistics> statistics_;                // of all blocks in order
};

}  // namespace adamas
