#include "plan.hpp"

#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <stdexcept>

namespace adamas {

namespace {

constexpr std::size_t release_gil = 4096;  // elements from which a step lets other Python threads run

std::size_t count_words(const char* text) {
    return *text ? static_cast<std::size_t>(std::count(text, text + std::char_traits<char>::length(text), ' ')) + 1 : 0;
}

// A child of a gradient list or tuple of the right length, else null.
PyObject** sequence(PyObject* object, std::size_t size) {
    if (!PyList_CheckExact(object) && !PyTuple_CheckExact(object)) return nullptr;
    if (PySequence_Fast_GET_SIZE(object) != static_cast<Py_ssize_t>(size)) return nullptr;
    return PySequence_Fast_ITEMS(object);
}

// Asks the cache for what lies ahead of item i: the work between two steps has evicted most of it. 1.5x for 1,000 small
// arrays.
void prefetch(PyObject** items, std::size_t i, std::size_t count) {
    constexpr std::size_t ahead = 8;
    if (i + 2 * ahead < count) __builtin_prefetch(items[i + 2 * ahead]);
    if (i + ahead >= count) return;
    if (PyArrayObject* array = as_array(items[i + ahead])) {
        __builtin_prefetch(PyArray_DIMS(array));
        __builtin_prefetch(PyArray_DATA(array));
    }
}

Segment make_segment(nb::handle source, std::size_t state_count) {
    const auto [group, like, state, packed] = nb::cast<std::tuple<std::size_t, nb::object, nb::tuple, bool>>(source);
    Segment segment;
    segment.group = group;
    for (nb::handle array : state) segment.state.push_back(nb::borrow(array));

    // The state was made in the memory order of the parameter; a rule without state follows the parameter.
    PyArrayObject* array = as_array(like.ptr());
    PyArrayObject* model = state_count ? as_array(segment.state.at(0).ptr()) : array;
    Type type;
    bool right = array && find_type(array, type) && segment.state.size() == state_count && model &&
                 PyArray_NDIM(model) == PyArray_NDIM(array);
    if (right) {
        segment.layout = Layout(array, model);
        for (const nb::object& one : segment.state) {
            PyArrayObject* moment = as_array(one.ptr());
            right = right && moment && find_type(moment, type) && PyArray_ISWRITEABLE(moment) &&
                    segment.layout.fits(moment) && segment.layout.dense(moment, type);
        }
    }
    if (!right) throw std::invalid_argument("a segment needs state arrays that are dense and like their parameter");
    for (std::size_t i = 0; i < state_count; ++i)
        segment.state_data[i] = PyArray_DATA(as_array(segment.state[i].ptr()));
    if (packed) {
        segment.numbers = static_cast<double*>(PyArray_DATA(array));
        segment.number_grads.resize(segment.layout.size);
        segment.keep = like;
    }
    return segment;
}

Node compile(nb::handle skeleton, const std::vector<Segment>& segments) {
    Node node;
    const auto add = [&](nb::handle child) {
        node.children.push_back(compile(child, segments));
        node.has_numbers |= node.children.back().has_numbers;
    };
    if (nb::isinstance<nb::list>(skeleton)) {
        node.kind = Node::list;
        for (nb::handle child : nb::borrow<nb::list>(skeleton)) add(child);
    } else if (nb::isinstance<nb::dict>(skeleton)) {
        node.kind = Node::dict;
        for (auto [key, child] : nb::borrow<nb::dict>(skeleton)) {
            node.keys.push_back(nb::borrow(key));
            add(child);
        }
    } else if (nb::isinstance<nb::tuple>(skeleton)) {
        node.kind = Node::tuple;
        for (nb::handle child : nb::borrow<nb::tuple>(skeleton)) add(child);
    } else if (!skeleton.is_none()) {
        node.kind = Node::leaf;
        node.segment = nb::cast<std::size_t>(skeleton.attr("segment"));
        node.index = nb::cast<std::size_t>(skeleton.attr("index"));
        node.has_numbers = segments.at(node.segment).numbers != nullptr;
        node.convert = skeleton.attr("convert");
    }
    return node;
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

Plan::Plan(const std::string& rule, nb::list segments, nb::object skeleton, std::uint64_t t)
    : rule_(find_rule(rule)), t_(t) {
    const RuleInfo& info = active_table().rules[rule_];
    coefficient_count_ = count_words(info.coefficients);
    state_count_ = count_words(info.state_names);
    for (nb::handle item : segments) segments_.push_back(make_segment(item, state_count_));
    root_ = compile(skeleton, segments_);
}

// Reads the coefficients; throws if another thread is, or has been, in the same step.
void Plan::begin(nb::tuple coefficients, nb::tuple decays, std::uint64_t t) {
    if (running_ || t != t_ + 1) throw std::runtime_error("the optimizer is in an update already: use one per thread");
    const auto wrong = [](bool is_wrong) {
        if (is_wrong) throw std::invalid_argument("per group: a dict of the rule's coefficients, and (l2, decay)");
    };
    wrong(coefficients.size() != decays.size());
    coefficients_.resize(coefficients.size());
    for (std::size_t i = 0; i < coefficients_.size(); ++i) {
        PyObject* dict = PyTuple_GET_ITEM(coefficients.ptr(), i);
        PyObject* decay = PyTuple_GET_ITEM(decays.ptr(), i);
        wrong(!PyDict_Check(dict) || PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(coefficient_count_) ||
              !PyTuple_Check(decay) || PyTuple_GET_SIZE(decay) != 2);
        Py_ssize_t position = 0;
        PyObject *key, *value;
        for (double* c = coefficients_[i].rule; PyDict_Next(dict, &position, &key, &value); ++c)
            *c = PyFloat_AsDouble(value);
        coefficients_[i].l2 = PyFloat_AsDouble(PyTuple_GET_ITEM(decay, 0));
        coefficients_[i].decay = PyFloat_AsDouble(PyTuple_GET_ITEM(decay, 1));
    }
    if (PyErr_Occurred()) throw nb::python_error();
    blocks_.clear();
    views_.clear();
    dimensions_.clear();
    params_.clear();
    grads_.clear();
    held_.clear();
}

bool Plan::read_number(const Node& node, PyObject* p, PyObject* g) {
    Segment& segment = segments_[node.segment];
    const bool known = node.convert.is_none() ? PyFloat_CheckExact(p) || PyLong_CheckExact(p)
                                              : node.convert.is(reinterpret_cast<PyObject*>(Py_TYPE(p)));
    return known && read_double(p, segment.numbers[node.index]) && read_double(g, segment.number_grads[node.index]);
}

// Adds a block of a segment, dense until a view is given.
Block& Plan::add_block(const Segment& segment, void* p, const void* g) {
    Block& block = blocks_.emplace_back();
    block.size = segment.layout.size;
    block.type = segment.layout.type;
    block.p = p;
    block.g = g;
    block.coefficients = &coefficients_.at(segment.group);
    std::copy(segment.state_data, segment.state_data + state_count_, block.state);
    return block;
}

// Returns null for a dense array, else how to walk it.
const View* Plan::view(const Layout& layout, PyArrayObject* array, Type type) {
    if (layout.dense(array, type)) return nullptr;
    const std::size_t axes = layout.order.size();
    std::vector<std::int64_t>& dimensions = dimensions_.emplace_back(2 * axes);
    for (std::size_t i = 0; i < axes; ++i) {
        dimensions[i] = PyArray_DIM(array, layout.order[i]);
        dimensions[axes + i] = PyArray_STRIDE(array, layout.order[i]);
    }
    return &views_.emplace_back(View{PyArray_BYTES(array), type, axes, dimensions.data(), dimensions.data() + axes});
}

bool Plan::read_arrays(Segment& segment, PyObject* p, PyObject* g) {
    if (g == Py_None) return true;
    PyArrayObject* param = as_array(p);
    PyArrayObject* grad = as_array(g);
    Type p_type, g_type;
    if (!param || !grad || !find_type(param, p_type) || !find_type(grad, g_type)) return false;
    const Layout& layout = segment.layout;
    if (p_type != layout.type || !layout.fits(param) || !layout.fits(grad) || !PyArray_ISWRITEABLE(param)) return false;
    if (layout.size == 0) return true;
    const View* p_view = view(layout, param, p_type);
    if (p_view && overlaps_itself(param)) return false;
    Block& block = add_block(segment, PyArray_DATA(param), PyArray_DATA(grad));
    block.p_view = p_view;
    block.g_view = view(layout, grad, g_type);
    params_.push_back(extent(param));
    grads_.push_back(extent(grad));
    held_.push_back(nb::borrow(p));
    held_.push_back(nb::borrow(g));
    return true;
}

bool Plan::read(const Node& node, PyObject* p, PyObject* g, bool top) {
    switch (node.kind) {
        case Node::list:
        case Node::tuple: {
            if (node.kind == Node::list ? !PyList_CheckExact(p) : !PyTuple_CheckExact(p)) return false;
            PyObject** p_items = sequence(p, node.children.size());
            PyObject** g_items = sequence(g, node.children.size());
            if (!p_items || !g_items) return false;
            const std::size_t count = node.children.size();
            for (std::size_t i = 0; i < count; ++i) {
                prefetch(p_items, i, count);
                prefetch(g_items, i, count);
                if (!read(node.children[i], p_items[i], g_items[i], false)) return false;
            }
            return true;
        }
        case Node::dict: {
            const auto size = static_cast<Py_ssize_t>(node.children.size());
            if (!PyDict_CheckExact(p) || PyDict_GET_SIZE(p) != size) return false;
            if (PyDict_CheckExact(g) && PyDict_GET_SIZE(g) == size) {
                for (std::size_t i = 0; i < node.children.size(); ++i) {
                    PyObject* p_item = PyDict_GetItemWithError(p, node.keys[i].ptr());
                    PyObject* g_item = p_item ? PyDict_GetItemWithError(g, node.keys[i].ptr()) : nullptr;
                    if (!g_item) {
                        PyErr_Clear();
                        return false;
                    }
                    if (!read(node.children[i], p_item, g_item, false)) return false;
                }
                return true;
            }
            PyObject** g_items = top ? sequence(g, node.children.size()) : nullptr;  // in the order of the dict
            if (!g_items) return false;
            Py_ssize_t position = 0;
            PyObject *key, *p_item;
            for (std::size_t i = 0; PyDict_Next(p, &position, &key, &p_item); ++i)
                if (key != node.keys[i].ptr() || !read(node.children[i], p_item, g_items[i], false)) return false;
            return true;
        }
        case Node::leaf:
            return node.has_numbers ? read_number(node, p, g) : read_arrays(segments_[node.segment], p, g);
        case Node::unknown:
            break;
    }
    return false;
}

// Whether two parameters, or a gradient and any parameter, may share memory.
bool Plan::overlaps() {
    if (params_ != known_) {
        sorted_ = params_;
        std::sort(sorted_.begin(), sorted_.end());
        for (std::size_t i = 1; i < sorted_.size(); ++i) {
            if (sorted_[i - 1].second > sorted_[i].first) {
                known_.clear();
                return true;
            }
        }
        known_ = params_;
    }
    for (const Extent& grad : grads_) {
        // The first parameter that ends after the gradient begins: since none overlap, ends are sorted too.
        const auto next = std::lower_bound(sorted_.begin(), sorted_.end(), grad.first,
                                           [](const Extent& p, const char* at) { return p.second <= at; });
        if (next != sorted_.end() && next->first < grad.second) return true;
    }
    return false;
}

void Plan::execute(std::uint64_t t) {
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.size;
    t_ = t;
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

// Puts new floats where the old ones were; returns the tree, whose tuples and bare floats are new.
nb::object Plan::write(const Node& node, nb::handle p) const {
    if (!node.has_numbers) return nb::borrow(p);
    if (node.kind == Node::leaf) {
        nb::object number = nb::steal(PyFloat_FromDouble(segments_[node.segment].numbers[node.index]));
        return node.convert.is_none() ? number : node.convert(number);
    }
    const auto size = static_cast<Py_ssize_t>(node.children.size());
    const bool same = node.kind == Node::list    ? PyList_CheckExact(p.ptr()) && PyList_GET_SIZE(p.ptr()) == size
                      : node.kind == Node::tuple ? PyTuple_CheckExact(p.ptr()) && PyTuple_GET_SIZE(p.ptr()) == size
                                                 : PyDict_CheckExact(p.ptr()) && PyDict_GET_SIZE(p.ptr()) == size;
    if (!same) throw std::runtime_error("params was changed by another thread during the update");
    nb::object tuple = node.kind == Node::tuple ? nb::steal(PyTuple_New(size)) : nb::object();
    for (Py_ssize_t i = 0; i < size; ++i) {
        const Node& child = node.children[i];
        if (node.kind == Node::tuple) {
            PyTuple_SET_ITEM(tuple.ptr(), i, write(child, PyTuple_GET_ITEM(p.ptr(), i)).release().ptr());
        } else if (!child.has_numbers) {
            continue;
        } else if (node.kind == Node::list) {
            PyList_SetItem(p.ptr(), i, write(child, PyList_GET_ITEM(p.ptr(), i)).release().ptr());
        } else if (PyObject* old = PyDict_GetItemWithError(p.ptr(), node.keys[i].ptr())) {
            PyDict_SetItem(p.ptr(), node.keys[i].ptr(), write(child, old).ptr());
        }
    }
    return tuple.is_valid() ? tuple : nb::borrow(p);
}

nb::object Plan::step(nb::object params, nb::object grads, nb::tuple coefficients, nb::tuple decays, std::uint64_t t) {
    begin(coefficients, decays, t);
    if (!read(root_, params.ptr(), grads.ptr(), true) || overlaps()) {
        held_.clear();
        return nb::none();
    }
    if (root_.has_numbers)
        for (Segment& segment : segments_)
            if (segment.numbers) add_block(segment, segment.numbers, segment.number_grads.data());
    execute(t);
    return write(root_, params);
}

void Plan::run(nb::list params, nb::list grads, nb::tuple coefficients, nb::tuple decays, std::uint64_t t) {
    begin(coefficients, decays, t);
    bool right = params.size() == segments_.size() && grads.size() == segments_.size();
    for (std::size_t i = 0; right && i < segments_.size(); ++i)
        right = read_arrays(segments_[i], PyList_GET_ITEM(params.ptr(), i), PyList_GET_ITEM(grads.ptr(), i));
    if (!right) throw std::invalid_argument("one array and one gradient per segment, of its shape and type");
    execute(t);
}

}  // namespace adamas
