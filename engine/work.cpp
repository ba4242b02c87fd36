#include "work.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace adamas {

namespace {

constexpr std::size_t release_gil = 4096;  // elements from which a step lets other Python threads run

std::size_t count_words(const char* text) {
    return *text ? static_cast<std::size_t>(std::count(text, text + std::char_traits<char>::length(text), ' ')) + 1 : 0;
}

// Whether an array has the codes and scales of the elements of a parameter.
bool holds_q8(const Layout& layout, const Array& array) {
    return !layout.complex && array.axes == 1 && (layout.size == 0 || array.stride(0) == 1) &&
           array.shape[0] == static_cast<std::int64_t>(layout.size + blocks_of(layout.size));
}

const Table*& chosen() {
    static const Table* table = supported().front();
    return table;
}

}  // namespace

const Table& active_table() {
    return *chosen();
}

void use_table(const std::string& isa) {
    for (const Table* table : supported()) {
        if (isa == table->isa) {
            chosen() = table;
            return;
        }
    }
    throw std::invalid_argument("this machine does not run '" + isa + "'");
}

Options Options::of(nb::handle tuple) {
    PyObject* t = tuple.ptr();
    if (!PyTuple_Check(t) || PyTuple_GET_SIZE(t) != 5)
        throw std::invalid_argument("options: (average, copy, zero, stochastic, seed)");
    Options options;
    options.average = PyTuple_GET_ITEM(t, 0) == Py_True;
    options.copy = PyTuple_GET_ITEM(t, 1) == Py_True;
    options.zero = PyTuple_GET_ITEM(t, 2) == Py_True;
    options.stochastic = PyTuple_GET_ITEM(t, 3) == Py_True;
    options.seed = nb::cast<std::uint64_t>(nb::handle(PyTuple_GET_ITEM(t, 4)));
    return options;
}

Work::Work(const std::string& rule, const Options& options) : rule_(find_rule(rule)), options_(options) {
    const RuleInfo& info = active_table().rules[rule_];
    coefficient_count_ = count_words(info.coefficients);
    state_count_ = count_words(info.state_names);
}

bool Work::read_layout(const Array& param, const Array& model, Layout& to) const {
    const bool coded = state_count_ > 0 && model.type == Type::q8;
    if (param.type == Type::q8 || (!coded && param.axes != model.axes)) return false;
    to = Layout(param, coded ? nullptr : &model);
    return true;
}

bool Work::read_slot(const Layout& layout, std::size_t i, const Array& array, Slots& to) const {
    if (!array.writeable) return false;
    const Type exact = arithmetic(layout.type);
    const bool coded = array.type == Type::q8;
    if (coded ? !holds_q8(layout, array) : !layout.fits(array) || !layout.dense(array)) return false;
    if (i < state_count_) {
        if (i > 0 && array.type != to.state_type) return false;
        to.state[i] = array.data;
        to.state_type = array.type;
        return array.type == exact || (exact == Type::float32 && (coded || array.type == Type::bfloat16));
    }
    if (options_.average && i == state_count_) {
        to.average = array.data;
        return array.type == exact;
    }
    to.copy = array.data;
    to.copy_type = array.type;
    return layout.complex ? array.type == exact : itemsize(array.type) == 2;
}

void Work::begin() {
    if (running_) throw std::runtime_error("the optimizer is in an update already: use one per thread");
    coefficients_.clear();
    blocks_.clear();
    views_.clear();
    dimensions_.clear();
    written_.clear();
    grads_.clear();
    held_.clear();
}

const Coefficients& Work::add_coefficients(nb::handle coefficients, nb::handle stages, std::uint64_t t) {
    PyObject* dict = coefficients.ptr();
    if (!PyDict_Check(dict) || PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(coefficient_count_) ||
        !PyTuple_Check(stages.ptr()) || PyTuple_GET_SIZE(stages.ptr()) != 9)
        throw std::invalid_argument("per group: a dict of the rule's coefficients, and the stages");
    Coefficients& numbers = coefficients_.emplace_back();
    Py_ssize_t position = 0;
    PyObject *key, *value;
    for (double* c = numbers.rule; PyDict_Next(dict, &position, &key, &value); ++c) *c = PyFloat_AsDouble(value);
    double* const to[] = {&numbers.scale, &numbers.clip,        &numbers.l2,   &numbers.decay,
                          &numbers.ema,   &numbers.update_clip, &numbers.trust};
    for (Py_ssize_t i = 0; i < 7; ++i) *to[i] = PyFloat_AsDouble(PyTuple_GET_ITEM(stages.ptr(), i));
    if (PyErr_Occurred()) throw nb::python_error();
    numbers.frozen = PyTuple_GET_ITEM(stages.ptr(), 7) == Py_True;
    numbers.cautious = PyTuple_GET_ITEM(stages.ptr(), 8) == Py_True;
    numbers.key = mix64(mix64(options_.seed) + t);
    return numbers;
}

Block& Work::add_block(const Layout& layout, const Slots& slots, void* p, void* g, const Coefficients* coefficients) {
    Block& block = blocks_.emplace_back();
    block.size = layout.size;
    block.p = {p, layout.type, nullptr};
    block.g = {g, layout.type, nullptr};
    block.slots = &slots;
    block.stochastic = options_.stochastic;
    block.coefficients = coefficients;
    return block;
}

const View* Work::view(const Layout& layout, const Array& array) {
    const std::size_t axes = layout.order.size(), all = axes + (array.complex ? 1 : 0);
    std::vector<std::int64_t>& dimensions = dimensions_.emplace_back(2 * all);
    for (std::size_t i = 0; i < axes; ++i) {
        dimensions[i] = array.shape[layout.order[i]];
        dimensions[all + i] = array.stride(layout.order[i]);
    }
    if (array.complex) {
        dimensions[axes] = 2;
        dimensions[all + axes] = itemsize(array.type);
    }
    return &views_.emplace_back(View{array.data, all, dimensions.data(), dimensions.data() + all});
}

bool Work::add_arrays(const Layout& layout, const Slots& slots, const Array& p, const Array& g,
                      const Coefficients* coefficients) {
    if (p.type != layout.type || !layout.fits(p) || !layout.fits(g) || !p.writeable || g.type == Type::q8) return false;
    if (layout.size == 0) return true;
    const View* p_view = layout.dense(p) ? nullptr : view(layout, p);
    if (p_view && p.overlaps_itself()) return false;
    const View* g_view = layout.dense(g) ? nullptr : view(layout, g);
    if (options_.zero && (!g.writeable || (g_view && g.overlaps_itself()))) return false;
    Block& block = add_block(layout, slots, p.data, g.data, coefficients);
    block.p.view = p_view;
    block.g = {g.data, g.type, g_view};
    block.zero = options_.zero;
    written_.push_back(p.extent());
    (options_.zero ? written_ : grads_).push_back(g.extent());
    return true;
}

bool Work::add_rows(const Layout& layout, const Slots& slots, const Array& p, const Rows& rows, const Array& g,
                    const Coefficients* coefficients) {
    const auto count = static_cast<std::int64_t>(rows.count);
    if (p.type != layout.type || layout.complex || !layout.fits(p) || !layout.dense(p) || !p.writeable) return false;
    if (p.axes == 0 || g.axes != p.axes || g.complex || g.type == Type::q8 || g.shape[0] != count) return false;
    for (int axis = 0; axis < p.axes; ++axis)
        if (layout.order[axis] != axis || (axis > 0 && g.shape[axis] != p.shape[axis])) return false;
    if (slots.average || slots.copy || slots.state_type == Type::q8 || options_.stochastic || options_.zero)
        return false;
    if (coefficients->reduces() || !rows.inside(p.shape[0]) || !Layout(g, nullptr).dense(g)) return false;
    if (count == 0 || layout.size == 0) return true;
    Block& block = add_block(layout, slots, p.data, g.data, coefficients);
    block.g = {g.data, g.type, nullptr};
    block.rows = rows.data;
    block.width = layout.size / static_cast<std::size_t>(p.shape[0]);
    block.size = rows.count * block.width;
    written_.push_back(p.extent());
    grads_.push_back(g.extent());
    return true;
}

bool Work::overlaps() {
    if (written_ != known_) {
        sorted_ = written_;
        std::sort(sorted_.begin(), sorted_.end());
        for (std::size_t i = 1; i < sorted_.size(); ++i) {
            if (sorted_[i - 1].second > sorted_[i].first) {
                known_.clear();
                return true;
            }
        }
        known_ = written_;
    }
    places_.resize(grads_.size());
    for (std::size_t i = 0; i < grads_.size(); ++i) {
        const auto& [begin, end] = grads_[i];
        std::size_t& place = places_[i];
        const auto between = [&] {  // the array before ends before the gradient, the next one begins after it
            return (place == 0 || sorted_[place - 1].second <= begin) &&
                   (place == sorted_.size() || end <= sorted_[place].first);
        };
        if (place <= sorted_.size() && between()) continue;  // where it was in the last step
        // Since the arrays do not overlap, their ends are sorted too.
        place = std::lower_bound(sorted_.begin(), sorted_.end(), begin,
                                 [](const Extent& array, const char* at) { return array.second <= at; }) -
                sorted_.begin();
        if (!between()) return true;
    }
    return false;
}

bool Work::small() const {
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.size;
    return total < release_gil;
}

std::pair<double, bool> Work::norm() {
    const auto sum = [&](double unit) {
        if (small()) return sum_of_squares(active_table(), blocks_, unit);
        running_ = true;
        nb::gil_scoped_release released;
        return sum_of_squares(active_table(), blocks_, unit);
    };
    double total = sum(1.0);
    double unit = 1.0;
    if (!std::isfinite(total)) total = sum(unit = 0x1p-540);  // now only infinite or NaN if a gradient is
    running_ = false;
    return {std::sqrt(total) / unit, std::isfinite(total)};
}

void Work::scale(double factor) {
    for (Coefficients& numbers : coefficients_) numbers.scale *= factor;
}

void Work::observe() {
    std::size_t count = 0;
    for (const Block& block : blocks_) count += parts(block);
    statistics_.assign(count, {});
    Statistics* next = statistics_.data();
    for (Block& block : blocks_) {
        block.statistics = next;
        next += parts(block);
    }
}

void Work::report(nb::list to) const {
    for (const Block& block : blocks_) {
        Statistics all = block.statistics[0];
        for (std::size_t i = 1; i < parts(block); ++i) all.add(block.statistics[i]);
        to.append(nb::make_tuple(block.slots->array, block.size, all.grad_squares, all.param_squares,
                                 all.change_squares, all.rates, all.least_rate, all.most_rate, all.nonfinite,
                                 all.clipped));
    }
}

void Work::run(nb::handle seen) {
    if (!seen.is_none()) observe();
    if (small()) {
        adamas::run(active_table(), rule_, blocks_);
    } else {
        running_ = true;
        {
            nb::gil_scoped_release released;
            adamas::run(active_table(), rule_, blocks_);
        }
        running_ = false;
    }
    if (!seen.is_none()) report(nb::borrow<nb::list>(seen));
    held_.clear();
}

}  // namespace adamas
