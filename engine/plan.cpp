#include "plan.hpp"

#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <stdexcept>

namespace adamas {

namespace {

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

nb::object seen_by(nb::handle watch) {
    return watch.is_none() ? nb::none() : watch.attr("seen");
}

Segment make_segment(nb::handle source, const Work& work, bool stateless) {
    const auto [group, like, owners, packed] = nb::cast<std::tuple<std::size_t, nb::object, nb::tuple, bool>>(source);
    Segment segment;
    segment.group = group;
    for (nb::handle array : owners) segment.owners.push_back(nb::borrow(array));

    // The state was made in the memory order of the parameter; without any, the order is the parameter's.
    Array array, model, slot;
    bool right = read_array(like.ptr(), array) && segment.owners.size() == work.slot_count() &&
                 read_array(stateless ? like.ptr() : segment.owners[0].ptr(), model) &&
                 work.read_layout(array, model, segment.layout);
    segment.slots.state_type = arithmetic(segment.layout.type);  // if there is none
    for (std::size_t i = 0; right && i < segment.owners.size(); ++i)
        right = read_array(segment.owners[i].ptr(), slot) && work.read_slot(segment.layout, i, slot, segment.slots);
    if (!right) throw std::invalid_argument("a segment needs state arrays that are dense and like their parameter");
    if (packed) {
        segment.numbers = reinterpret_cast<double*>(array.data);
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

}  // namespace

Plan::Plan(const std::string& rule, nb::list segments, nb::object skeleton, std::uint64_t t, nb::tuple options)
    : work_(rule, Options::of(options)), t_(t) {
    std::uint64_t first = 0;
    for (nb::handle item : segments) {
        segments_.push_back(make_segment(item, work_, work_.slot_count() == 0));
        segments_.back().slots.array = segments_.size() - 1;
        segments_.back().slots.first = first;
        first += blocks_of(segments_.back().layout.size);
    }
    root_ = compile(skeleton, segments_);
}

// Reads the coefficients; throws if another thread is, or has been, in the same step.
void Plan::begin(nb::tuple coefficients, nb::tuple stages, std::uint64_t t) {
    if (!asking_) work_.begin();
    if (asking_ || t != t_ + 1) throw std::runtime_error("the optimizer is in an update already: use one per thread");
    if (coefficients.size() != stages.size()) throw std::invalid_argument("coefficients and stages: one per group");
    coefficients_.clear();
    for (std::size_t i = 0; i < coefficients.size(); ++i)
        coefficients_.push_back(&work_.add_coefficients(coefficients[i], stages[i], t));
}

bool Plan::read_number(const Node& node, PyObject* p, PyObject* g) {
    Segment& segment = segments_[node.segment];
    const bool known = node.convert.is_none() ? PyFloat_CheckExact(p) || PyLong_CheckExact(p)
                                              : node.convert.is(reinterpret_cast<PyObject*>(Py_TYPE(p)));
    return known && read_double(p, segment.numbers[node.index]) && read_double(g, segment.number_grads[node.index]);
}

bool Plan::read_arrays(Segment& segment, PyObject* p, PyObject* g) {
    if (g == Py_None) return true;
    Array param, grad;
    const Coefficients* const numbers = coefficients_.at(segment.group);
    if (!read_array(p, param)) return false;
    if (PyTuple_Check(g) && PyTuple_GET_SIZE(g) == 2) {  // some rows, and their gradients
        Rows rows;
        if (!read_rows(PyTuple_GET_ITEM(g, 0), rows) || !read_array(PyTuple_GET_ITEM(g, 1), grad) ||
            !work_.add_rows(segment.layout, segment.slots, param, rows, grad, numbers))
            return false;
    } else if (!read_array(g, grad) || !work_.add_arrays(segment.layout, segment.slots, param, grad, numbers)) {
        return false;
    }
    work_.hold(nb::borrow(p));
    work_.hold(nb::borrow(g));
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

// Asks the judge, if there is one, scales the gradients as it says, and tells the watch, if there is one, that the step
// begins; false, with the step forgotten, if it is not to be taken.
bool Plan::begins(nb::handle judge, nb::handle watch) {
    asking_ = true;  // from here on: these are Python, which may let another thread in
    struct Done {
        bool& flag;
        ~Done() { flag = false; }
    } const done{asking_};
    if (!judge.is_none()) {
        const auto [norm, finite] = work_.norm();
        const nb::object factor = judge(norm, finite);
        if (factor.is_none()) {
            work_.drop();
            return false;
        }
        work_.scale(nb::cast<double>(factor));
    }
    if (!watch.is_none()) watch.attr("begin")();
    return true;
}

nb::object Plan::step(nb::object params, nb::object grads, nb::tuple coefficients, nb::tuple stages, std::uint64_t t,
                      nb::object judge, nb::object watch) {
    begin(coefficients, stages, t);
    if (!read(root_, params.ptr(), grads.ptr(), true) || work_.overlaps()) {
        work_.drop();
        return nb::none();
    }
    if (root_.has_numbers)
        for (Segment& segment : segments_)
            if (segment.numbers)
                work_.add_block(segment.layout, segment.slots, segment.numbers, segment.number_grads.data(),
                                coefficients_.at(segment.group));
    if (!begins(judge, watch)) return nb::bool_(false);
    t_ = t;
    work_.run(seen_by(watch));
    return write(root_, params);
}

bool Plan::run(nb::list params, nb::list grads, nb::tuple coefficients, nb::tuple stages, std::uint64_t t,
               nb::object judge, nb::object watch) {
    begin(coefficients, stages, t);
    bool right = params.size() == segments_.size() && grads.size() == segments_.size();
    for (std::size_t i = 0; right && i < segments_.size(); ++i)
        right = read_arrays(segments_[i], PyList_GET_ITEM(params.ptr(), i), PyList_GET_ITEM(grads.ptr(), i));
    if (!right) throw std::invalid_argument("one array and one gradient per segment, of its shape and type");
    if (!begins(judge, watch)) return false;
    t_ = t;
    work_.run(seen_by(watch));
    return true;
}

}  // namespace adamas
