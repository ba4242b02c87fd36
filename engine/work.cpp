#include "work.hpp"

#include <algorithm>
#include <stdexcept>

namespace adamas {

namespace {

constexpr std::size_t release_gil = 4096;  // elements from which a step lets other Python threads run

std::size_t count_words(const char* text) {
    return *text ? static_cast<std::size_t>(std::count(text, text + std::char_traits<char>::length(text), ' ')) + 1 : 0;
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

Work::Work(const std::string& rule) : rule_(find_rule(rule)) {
    const RuleInfo& info = active_table().rules[rule_];
    coefficient_count_ = count_words(info.coefficients);
    state_count_ = count_words(info.state_names);
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

const Coefficients& Work::add_coefficients(nb::handle coefficients, nb::handle stages) {
    PyObject* dict = coefficients.ptr();
    if (!PyDict_Check(dict) || PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(coefficient_count_) ||
        !PyTuple_Check(stages.ptr()) || PyTuple_GET_SIZE(stages.ptr()) != 3)
        throw std::invalid_argument("per group: a dict of the rule's coefficients, and (scale, l2, decay)");
    Coefficients& numbers = coefficients_.emplace_back();
    Py_ssize_t position = 0;
    PyObject *key, *value;
    for (double* c = numbers.rule; PyDict_Next(dict, &position, &key, &value); ++c) *c = PyFloat_AsDouble(value);
    numbers.scale = PyFloat_AsDouble(PyTuple_GET_ITEM(stages.ptr(), 0));
    numbers.l2 = PyFloat_AsDouble(PyTuple_GET_ITEM(stages.ptr(), 1));
    numbers.decay = PyFloat_AsDouble(PyTuple_GET_ITEM(stages.ptr(), 2));
    if (PyErr_Occurred()) throw nb::python_error();
    return numbers;
}

Block& Work::add_block(const Layout& layout, void* const* state, void* p, const void* g,
                       const Coefficients* coefficients) {
    Block& block = blocks_.emplace_back();
    block.size = layout.size;
    block.type = layout.type;
    block.p = p;
    block.g = g;
    block.coefficients = coefficients;
    std::copy(state, state + state_count_, block.state);
    return block;
}

const View* Work::view(const Layout& layout, const Array& array) {
    const std::size_t axes = layout.order.size();
    std::vector<std::int64_t>& dimensions = dimensions_.emplace_back(2 * axes);
    for (std::size_t i = 0; i < axes; ++i) {
        dimensions[i] = array.shape[layout.order[i]];
        dimensions[axes + i] = array.stride(layout.order[i]);
    }
    return &views_.emplace_back(View{array.data, array.type, axes, dimensions.data(), dimensions.data() + axes});
}

bool Work::add_arrays(const Layout& layout, void* const* state, const Array& p, const Array& g,
                      const Coefficients* coefficients) {
    if (p.type != layout.type || !layout.fits(p) || !layout.fits(g) || !p.writeable) return false;
    if (layout.size == 0) return true;
    const View* p_view = layout.dense(p) ? nullptr : view(layout, p);
    if (p_view && p.overlaps_itself()) return false;
    Block& block = add_block(layout, state, p.data, g.data, coefficients);
    block.p_view = p_view;
    block.g_view = layout.dense(g) ? nullptr : view(layout, g);
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

void Work::run() {
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.size;
    if (total < release_gil) {
        adamas::run(active_table(), rule_, blocks_);
    } else {
        running_ = true;
        {
            nb::gil_scoped_release released;
            adamas::run(active_table(), rule_, blocks_);
        }
        running_ = false;
    }
    held_.clear();
}

}  // namespace adamas
