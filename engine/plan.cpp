#include "plan.hpp"

#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <stdexcept>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

namespace adamas {

namespace {

constexpr std::size_t release_gil = 4096;  // elements from which a step lets other Python threads run

std::size_t count_words(const char* text) {
    return *text ? static_cast<std::size_t>(std::count(text, text + std::char_traits<char>::length(text), ' ')) + 1 : 0;
}

bool find_type(PyArrayObject* array, Type& type) {
    const PyArray_Descr* descr = PyArray_DESCR(array);
    if (!PyArray_ISNBO(descr->byteorder)) return false;
    if (descr->type_num == NPY_FLOAT) {
        type = Type::float32;
    } else if (descr->type_num == NPY_DOUBLE) {
        type = Type::float64;
    } else {
        return false;
    }
    return true;
}

// The memory between an array's first and last byte.
std::pair<const char*, const char*> extent(PyArrayObject* array) {
    const char* low = PyArray_BYTES(array);
    const char* high = low + PyArray_ITEMSIZE(array);
    for (int axis = 0; axis < PyArray_NDIM(array); ++axis) {
        const npy_intp reach = (PyArray_DIM(array, axis) - 1) * PyArray_STRIDE(array, axis);
        (reach < 0 ? low : high) += reach;
    }
    return {low, high};
}

// Whether two elements of an array may share memory, as in a broadcast view.
bool overlaps_itself(PyArrayObject* array) {
    std::vector<std::pair<npy_intp, npy_intp>> axes;  // stride, extent
    for (int axis = 0; axis < PyArray_NDIM(array); ++axis)
        if (PyArray_DIM(array, axis) > 1)
            axes.emplace_back(std::abs(PyArray_STRIDE(array, axis)), PyArray_DIM(array, axis));
    std::sort(axes.begin(), axes.end());
    npy_intp reach = PyArray_ITEMSIZE(array);
    for (const auto& [stride, extent] : axes) {
        if (stride < reach) return true;
        reach += stride * (extent - 1);
    }
    return false;
}

// A Python or NumPy number as a double; false for anything else, bool included.
bool read_double(PyObject* object, double& to) {
    if (PyFloat_Check(object)) {
        to = PyFloat_AS_DOUBLE(object);
        return true;
    }
    const bool array = PyArray_Check(object) && PyArray_NDIM(reinterpret_cast<PyArrayObject*>(object)) == 0 &&
                       PyArray_ISFLOAT(reinterpret_cast<PyArrayObject*>(object));
    if (!PyLong_CheckExact(object) && !PyArray_IsScalar(object, Floating) && !array) return false;
    to = PyFloat_AsDouble(object);
    if (to == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    return true;
}

// A child of a gradient list or tuple of the right length, else null.
PyObject** sequence(PyObject* object, std::size_t size) {
    if (!PyList_CheckExact(object) && !PyTuple_CheckExact(object)) return nullptr;
    if (PySequence_Fast_GET_SIZE(object) != static_cast<Py_ssize_t>(size)) return nullptr;
    return PySequence_Fast_ITEMS(object);
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
    for (nb::handle item : segments) {
        const auto [group, like, state, packed] = nb::cast<std::tuple<std::size_t, nb::object, nb::tuple, bool>>(item);
        auto* array = reinterpret_cast<PyArrayObject*>(like.ptr());
        Segment segment;
        segment.group = group;
        if (!PyArray_Check(like.ptr()) || !find_type(array, segment.type) || state.size() != state_count_)
            throw std::invalid_argument("a segment: (group, array, tuple of state arrays, packed)");
        segment.shape.assign(PyArray_DIMS(array), PyArray_DIMS(array) + PyArray_NDIM(array));
        for (nb::handle array_of_state : state) segment.state.push_back(nb::borrow(array_of_state));

        // The state was made in the memory order of the parameter; a rule without state follows the parameter.
        auto* model = state_count_ ? reinterpret_cast<PyArrayObject*>(segment.state[0].ptr()) : array;
        segment.order.resize(segment.shape.size());
        for (std::size_t axis = 0; axis < segment.order.size(); ++axis) segment.order[axis] = static_cast<int>(axis);
        std::stable_sort(segment.order.begin(), segment.order.end(), [&](int a, int b) {
            return std::abs(PyArray_STRIDE(model, a)) > std::abs(PyArray_STRIDE(model, b));
        });
        segment.strides.resize(segment.shape.size());
        std::int64_t stride = PyArray_ITEMSIZE(array);
        for (std::size_t i = segment.order.size(); i-- > 0; stride *= segment.shape[segment.order[i]])
            segment.strides[segment.order[i]] = stride;
        for (std::int64_t extent : segment.shape) segment.size *= static_cast<std::size_t>(extent);
        for (nb::handle one : segment.state) {
            auto* a = reinterpret_cast<PyArrayObject*>(one.ptr());
            Type type;
            bool right = PyArray_Check(one.ptr()) && find_type(a, type) && type == segment.type &&
                         PyArray_NDIM(a) == PyArray_NDIM(array) && PyArray_ISBEHAVED(a);
            for (int axis = 0; right && axis < PyArray_NDIM(a); ++axis)
                right = PyArray_DIM(a, axis) == segment.shape[axis] &&
                        (PyArray_STRIDE(a, axis) == segment.strides[axis] || segment.shape[axis] == 1 || !segment.size);
            if (!right) throw std::invalid_argument("state arrays: dense, of the parameter's shape and type");
        }
        if (packed) {
            segment.numbers = static_cast<double*>(PyArray_DATA(array));
            segment.number_grads.resize(segment.size);
            segment.keep = like;
        }
        segments_.push_back(std::move(segment));
    }
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

void Plan::add_numbers(Segment& segment) {
    Block block;
    block.size = segment.size;
    block.type = segment.type;
    block.coefficients = &coefficients_.at(segment.group);
    block.p = segment.numbers;
    block.g = segment.number_grads.data();
    for (std::size_t i = 0; i < state_count_; ++i)
        block.state[i] = PyArray_DATA(reinterpret_cast<PyArrayObject*>(segment.state[i].ptr()));
    blocks_.push_back(block);
}

bool Plan::read_arrays(Segment& segment, PyObject* p, PyObject* g) {
    if (g == Py_None) return true;
    if (!PyArray_Check(p) || !PyArray_Check(g)) return false;
    auto* parameter = reinterpret_cast<PyArrayObject*>(p);
    auto* gradient = reinterpret_cast<PyArrayObject*>(g);
    Type p_type, g_type;
    if (!find_type(parameter, p_type) || !find_type(gradient, g_type) || p_type != segment.type) return false;
    if (!PyArray_ISWRITEABLE(parameter)) return false;

    Block block;
    block.size = segment.size;
    block.type = segment.type;
    block.coefficients = &coefficients_.at(segment.group);
    block.p = PyArray_DATA(parameter);
    block.g = PyArray_DATA(gradient);
    const int axes = static_cast<int>(segment.shape.size());
    const auto view = [&](PyArrayObject* array, Type type, const View*& to) {
        if (PyArray_NDIM(array) != axes) return false;
        bool dense = type == segment.type && PyArray_ISALIGNED(array);
        for (int axis = 0; axis < axes; ++axis) {
            if (PyArray_DIM(array, axis) != segment.shape[axis]) return false;
            dense &= PyArray_STRIDE(array, axis) == segment.strides[axis] || segment.shape[axis] == 1;
        }
        if (dense || segment.size == 0) return true;
        if (array == parameter && overlaps_itself(array)) return false;
        std::vector<std::int64_t>& dimensions = dimensions_.emplace_back(2 * segment.order.size());
        for (int i = 0; i < axes; ++i) {
            dimensions[i] = PyArray_DIM(array, segment.order[i]);
            dimensions[axes + i] = PyArray_STRIDE(array, segment.order[i]);
        }
        const auto count = static_cast<std::size_t>(axes);
        to =
            &views_.emplace_back(View{PyArray_BYTES(array), type, count, dimensions.data(), dimensions.data() + count});
        return true;
    };
    if (!view(parameter, p_type, block.p_view) || !view(gradient, g_type, block.g_view)) return false;
    if (segment.size == 0) return true;
    for (std::size_t i = 0; i < state_count_; ++i)
        block.state[i] = PyArray_DATA(reinterpret_cast<PyArrayObject*>(segment.state[i].ptr()));
    blocks_.push_back(block);
    params_.push_back(extent(parameter));
    grads_.push_back(extent(gradient));
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
            for (std::size_t i = 0; i < node.children.size(); ++i)
                if (!read(node.children[i], p_items[i], g_items[i], false)) return false;
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
    switch (node.kind) {
        case Node::list:
            for (std::size_t i = 0; i < node.children.size(); ++i)
                if (node.children[i].has_numbers)
                    PyList_SetItem(p.ptr(), static_cast<Py_ssize_t>(i),
                                   write(node.children[i], PyList_GET_ITEM(p.ptr(), i)).release().ptr());
            return nb::borrow(p);
        case Node::dict:
            for (std::size_t i = 0; i < node.children.size(); ++i)
                if (node.children[i].has_numbers)
                    PyDict_SetItem(p.ptr(), node.keys[i].ptr(),
                                   write(node.children[i], PyDict_GetItem(p.ptr(), node.keys[i].ptr())).ptr());
            return nb::borrow(p);
        case Node::tuple: {
            PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(node.children.size()));
            for (std::size_t i = 0; i < node.children.size(); ++i)
                PyTuple_SET_ITEM(tuple, i, write(node.children[i], PyTuple_GET_ITEM(p.ptr(), i)).release().ptr());
            return nb::steal(tuple);
        }
        case Node::leaf: {
            nb::object number = nb::steal(PyFloat_FromDouble(segments_[node.segment].numbers[node.index]));
            return node.convert.is_none() ? number : node.convert(number);
        }
        case Node::unknown:
            break;
    }
    return nb::none();
}

nb::object Plan::step(nb::object params, nb::object grads, nb::tuple coefficients, nb::tuple decays, std::uint64_t t) {
    begin(coefficients, decays, t);
    if (!read(root_, params.ptr(), grads.ptr(), true) || overlaps()) {
        held_.clear();
        return nb::none();
    }
    if (root_.has_numbers)
        for (Segment& segment : segments_)
            if (segment.numbers) add_numbers(segment);
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

bool import_numpy() {
    return _import_array() >= 0;
}

}  // namespace adamas
