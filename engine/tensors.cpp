#include "tensors.hpp"

#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <tuple>

namespace adamas {

namespace {

// DLPack's structures (version 1), as far as they are read here: https://dmlc.github.io/dlpack/latest/c_api.html

struct DLTensor {
    void* data;
    std::int32_t device_type, device_id;
    std::int32_t ndim;
    std::uint8_t code, bits;
    std::uint16_t lanes;
    std::int64_t *shape, *strides;  // strides in elements
    std::uint64_t byte_offset;
};

struct DLPackExchangeAPI {
    std::uint32_t major, minor;
    void* previous;
    void* managed_tensor_allocator;
    void* managed_tensor_from_py_object_no_sync;
    void* managed_tensor_to_py_object_no_sync;
    int (*dltensor_from_py_object_no_sync)(void* object, void* to);
    void* current_work_stream;
};

constexpr std::int32_t cpu = 1;

// The format of DLPack's type; false if the engine has none for it.
bool read_type(const DLTensor& tensor, Array& to) {
    constexpr std::uint8_t whole = 1, floating = 2, brain = 4, complex = 5;
    to.complex = tensor.code == complex;
    const int bits = to.complex ? tensor.bits / 2 : tensor.bits;
    if (tensor.lanes != 1) return false;
    if (tensor.code == whole) {
        to.type = Type::q8;
        return bits == 8;
    }
    if (tensor.code == brain) {
        to.type = Type::bfloat16;
        return bits == 16;
    }
    to.type = bits == 64 ? Type::float64 : bits == 32 ? Type::float32 : Type::float16;
    return (tensor.code == floating && bits >= 16 && bits <= 64) || (to.complex && bits >= 32);
}

// Asks the cache for a tensor that will be read soon: first for its object, then, when that is near, for what the first
// word after the object's header points to, which is where PyTorch keeps a tensor. Were that not so, it would be of no
// use and do no harm.
void prefetch_tensor(PyObject* tensor) {
    const char* inner;
    std::memcpy(&inner, tensor + 1, sizeof inner);
    for (std::size_t line = 0; line < 4; ++line) __builtin_prefetch(inner + 64 * line);
}

nb::object interned(const char* text) {
    return nb::steal(PyUnicode_InternFromString(text));
}

// The memory of a contiguous array of float64 of so many rows and columns.
double* rows_of(const nb::object& object, std::size_t rows, std::size_t columns) {
    Array array;
    bool right = read_array(object.ptr(), array) && array.type == Type::float64 && array.axes == 2 &&
                 array.shape[0] == static_cast<std::int64_t>(rows) &&
                 array.shape[1] == static_cast<std::int64_t>(columns);
    if (right && rows * columns > 0)
        right = array.stride(1) == array.itemsize() && array.stride(0) == array.shape[1] * array.itemsize();
    if (!right) throw std::invalid_argument("counts and carries must be arrays of float64, a row for each entry");
    return reinterpret_cast<double*>(array.data);
}

}  // namespace

Exchange::Exchange(nb::handle type) {
    constexpr const char* attribute = "__dlpack_c_exchange_api__";
    if (!nb::hasattr(type, attribute)) throw std::invalid_argument("tensors need DLPack's C exchange");
    nb::object capsule = type.attr(attribute);
    const auto* api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (!api) throw nb::python_error();
    if (api->major != 1 || !api->dltensor_from_py_object_no_sync)
        throw std::invalid_argument("tensors need DLPack's C exchange, version 1");
    from_object_ = api->dltensor_from_py_object_no_sync;
}

bool Exchange::read(PyObject* object, Array& to) const {
    DLTensor tensor;
    if (from_object_(object, &tensor) != 0) {
        PyErr_Clear();
        return false;
    }
    if (tensor.device_type != cpu || !read_type(tensor, to) || (tensor.ndim > 0 && !tensor.strides)) return false;
    to.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    to.axes = tensor.ndim;
    to.shape = tensor.shape;
    to.strides = tensor.strides;
    to.unit = to.itemsize();
    return true;
}

TensorPlan::TensorPlan(const std::string& rule, nb::handle tensor, nb::list entries, nb::list names, nb::object counts,
                       std::vector<std::size_t> carried, nb::object carries, nb::dict all_states,
                       nb::object make_handles, nb::tuple options)
    : exchange_(tensor),
      work_(rule, Options::of(options)),
      plain_(nb::borrow(tensor)),
      gradient_of_(tensor.attr("grad")),
      counts_owner_(counts),
      carried_(std::move(carried)),
      carries_owner_(carries) {
    counts_ = rows_of(counts, entries.size(), 1);
    carries_ = rows_of(carries, entries.size(), carried_.size());
    for (nb::handle name : names) names_.push_back(nb::borrow(name));
    if (names_.size() != work_.slot_count()) throw std::invalid_argument("names: one for all that is remembered");
    for (auto [key, value] : all_states) states_.emplace_back(nb::borrow(key), nb::borrow(value));

    for (nb::handle source : entries) {
        const auto [group, param, state, count, plain, place, first] =
            nb::cast<std::tuple<std::size_t, nb::object, nb::object, nb::object, bool, std::size_t, std::size_t>>(
                source);
        entries_.push_back({group, param, state, count, {}, {}, {}, plain || state.is_none(), {}, {}, {}, nullptr});
        entries_.back().memory.array = place;
        entries_.back().memory.first = first;
        if (groups_.empty() || groups_.back().first != group) groups_.emplace_back(group, 0);
        ++groups_.back().second;
    }
    choose(make_handles);
}

// Decides which entries the engine steps.
void TensorPlan::choose(const nb::object& make_handles) {
    const Coefficients none{};
    std::vector<Entry*> with_gradient;
    have_handles_ = !names_.empty() && !make_handles.is_none() && Handle::available();
    for (Entry& entry : entries_) {
        if (entry.state.is_none()) continue;
        Array param, model;
        entry.ours = find(entry) && entry.ours;
        // State is made in the memory order of the parameter; a rule without state follows the parameter.
        PyObject* like = names_.empty() ? entry.param.ptr() : entry.values[0];
        entry.ours = entry.ours && exchange_.read(entry.param.ptr(), param) && exchange_.read(like, model) &&
                     work_.read_layout(param, model, entry.layout);
        if (!entry.ours) continue;
        entry.memory.state_type = arithmetic(param.type);  // if there is none
        if (have_handles_) {
            nb::list values;
            for (PyObject* value : entry.values) values.append(nb::borrow(value));
            for (nb::handle capsule : nb::cast<nb::list>(make_handles(values)))
                entry.handles.emplace_back(PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr())));
        }
        nb::object grad = gradient(entry);
        if (grad.is_none()) continue;
        entry.ours = read_slots(entry) && read(entry, grad, &none);
        if (!entry.ours) continue;
        with_gradient.push_back(&entry);
        for (std::size_t k = 0; k < names_.size() && entry.layout.size > 0; ++k) work_.add_written(entry.extents[k]);
    }
    if (work_.overlaps())
        for (Entry* entry : with_gradient) entry->ours = false;
    work_.begin();
    for (std::size_t i = 0; i < entries_.size(); ++i)
        if (!entries_[i].ours) others_.push_back(i);
}

// Whether the groups hold the parameters that were learned.
bool TensorPlan::same_groups(PyObject* groups) const {
    static const nb::object& params_key = *new nb::object(interned("params"));
    std::size_t next = 0;
    for (const auto& [group, count] : groups_) {
        if (static_cast<Py_ssize_t>(group) >= PyList_GET_SIZE(groups)) return false;
        PyObject* dict = PyList_GET_ITEM(groups, group);
        PyObject* params = PyDict_Check(dict) ? PyDict_GetItemWithError(dict, params_key.ptr()) : nullptr;
        if (!params || !PyList_Check(params) || PyList_GET_SIZE(params) != static_cast<Py_ssize_t>(count)) return false;
        for (std::size_t i = 0; i < count; ++i)
            if (PyList_GET_ITEM(params, i) != entries_[next++].param.ptr()) return false;
    }
    return true;
}

// Whether the same parameters have the same dicts of state.
bool TensorPlan::same_states(PyObject* all_states) const {
    if (PyDict_GET_SIZE(all_states) != static_cast<Py_ssize_t>(states_.size())) return false;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    for (std::size_t i = 0; PyDict_Next(all_states, &position, &key, &value); ++i)
        if (key != states_[i].first.ptr() || value != states_[i].second.ptr()) return false;
    return true;
}

// Whether two entries are stepped by the same numbers.
bool TensorPlan::same_numbers(std::size_t i, std::size_t k) const {
    return entries_[i].group == entries_[k].group && counts_[i] == counts_[k] &&
           std::equal(carry(i), carry(i + 1), carry(k));
}

const Coefficients* TensorPlan::numbers_of(std::size_t i, nb::handle numbers) {
    for (auto known = numbers_.rbegin(); known != numbers_.rend(); ++known)
        if (same_numbers(i, known->entry)) return known->coefficients;
    const double t = counts_[i] + 1;
    nb::list carried;
    for (const double* number = carry(i); number != carry(i + 1); ++number) carried.append(*number);
    const auto pair = nb::cast<nb::tuple>(numbers(entries_[i].group, t, nb::tuple(carried)));
    if (pair.size() != 2) throw std::invalid_argument("numbers must return coefficients and stages");
    numbers_.push_back({i, &work_.add_coefficients(pair[0], pair[1], static_cast<std::uint64_t>(t))});
    return numbers_.back().coefficients;
}

// Returns the gradient of a parameter, None if it has none.
nb::object TensorPlan::gradient(const Entry& entry) const {
    PyObject* getter = gradient_of_.ptr();  // found once: a third faster than by name
    nb::object gradient = nb::steal(Py_TYPE(getter)->tp_descr_get(getter, entry.param.ptr(), nullptr));
    if (!gradient.is_valid()) throw nb::python_error();
    return gradient;
}

// Finds the slots of an entry: the rule's state by name, and the count; false if one is missing or no plain tensor.
bool TensorPlan::find(Entry& entry) const {
    std::size_t place = 0;
    entry.values.resize(names_.size());
    for (auto [key, value] : nb::borrow<nb::dict>(entry.state)) {
        const auto name = std::find_if(names_.begin(), names_.end(), [&](const auto& n) { return key.equal(n); });
        const bool counts = !entry.count.is_none() && key.equal(interned("step"));
        if (name != names_.end() || counts) {
            if (Py_TYPE(value.ptr()) != reinterpret_cast<PyTypeObject*>(plain_.ptr())) return false;
            entry.slots.push_back({place, nb::borrow(key), nb::borrow(value)});
        }
        if (name != names_.end()) entry.values[name - names_.begin()] = value.ptr();
        ++place;
    }
    return entry.slots.size() == names_.size() + (entry.count.is_none() ? 0 : 1);
}

// Whether the slots of an entry hold what they held.
bool TensorPlan::same_state(const Entry& entry) const {
    auto slot = entry.slots.begin();
    Py_ssize_t position = 0;
    PyObject *key, *value;
    for (std::size_t place = 0; slot != entry.slots.end(); ++place) {
        if (!PyDict_Next(entry.state.ptr(), &position, &key, &value)) return false;
        if (slot->place != place) continue;
        if (slot->key.ptr() != key || slot->value.ptr() != value) return false;
        ++slot;
    }
    return true;
}

// Whether a tensor stands for the negative or conjugate of what is in memory, which DLPack does not tell. Only complex
// tensors can be conjugates, and imaginary parts of those, which are strided or single numbers, negatives.
bool TensorPlan::lazy(const Layout& layout, const Array& array, PyObject* tensor) const {
    if (!array.complex && layout.size > 1 && layout.dense(array)) return false;
    const nb::handle object(tensor);
    return nb::cast<bool>(object.attr("is_neg")()) || nb::cast<bool>(object.attr("is_conj")());
}

// Finds where the state is; false if it is not for the engine. Needs the GIL only where there are no handles.
bool TensorPlan::read_slots(Entry& entry) const {
    for (std::size_t k = 0; k < names_.size(); ++k) {
        Array slot;
        const bool known = entry.handles.empty() ? exchange_.read(entry.values[k], slot) : entry.handles[k].read(slot);
        if (!known || !work_.read_slot(entry.layout, k, slot, entry.memory)) return false;
        entry.extents[k] = slot.extent();
    }
    return true;
}

// Adds an entry to the work; false if it is not for the engine. The gradient may be replaced by a copy.
bool TensorPlan::read(Entry& entry, nb::object& gradient, const Coefficients* coefficients) {
    const auto* plain = reinterpret_cast<PyTypeObject*>(plain_.ptr());
    Array param, grad;
    if (Py_TYPE(gradient.ptr()) != plain || !exchange_.read(gradient.ptr(), grad)) return false;
    if (!exchange_.read(entry.param.ptr(), param) || lazy(entry.layout, param, entry.param.ptr())) return false;
    if (entry.layout.fits(grad) && lazy(entry.layout, grad, gradient.ptr())) {
        if (work_.zeroes()) return false;
        gradient = gradient.attr("resolve_conj")().attr("resolve_neg")();
        if (!exchange_.read(gradient.ptr(), grad)) return false;
    }
    return work_.add_arrays(entry.layout, entry.memory, param, grad, coefficients);
}

// Asks the cache for what lies ahead of entry i: the work between two steps has evicted it.
void TensorPlan::prefetch(std::size_t i) const {
    constexpr std::size_t ahead = 4;
    const auto ask = [](const void* address) { __builtin_prefetch(address); };
    if (i + 3 * ahead < entries_.size()) {
        const Entry& entry = entries_[i + 3 * ahead];
        ask(&entry);
        ask(reinterpret_cast<const char*>(&entry) + 64);
        ask(reinterpret_cast<const char*>(&entry) + 128);
        ask(reinterpret_cast<const char*>(&entry) + 192);
    }
    if (i + 2 * ahead < entries_.size()) {
        const Entry& entry = entries_[i + 2 * ahead];
        ask(entry.param.ptr());
        ask(entry.state.ptr());
        ask(entry.slots.data());
        ask(entry.slots.data() + 2);
        ask(entry.values.data());
        ask(entry.handles.data());
        ask(entry.layout.shape.data());
        ask(entry.layout.strides.data());
        for (const Handle& handle : entry.handles) handle.prefetch_handle();
    }
    if (i + ahead < entries_.size()) {
        const Entry& entry = entries_[i + ahead];
        prefetch_tensor(entry.param.ptr());
        if (!entry.state.is_none()) ask(reinterpret_cast<PyDictObject*>(entry.state.ptr())->ma_keys);
        for (const Handle& handle : entry.handles) handle.prefetch_tensor();
    }
}

// Adds every entry that has a gradient; false if something is not as it was learned.
bool TensorPlan::read_tensors(nb::handle numbers) {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        Entry& entry = entries_[i];
        prefetch(i);
        if (!entry.slots.empty() && !same_state(entry)) return false;
        if (!entry.ours) continue;
        nb::object grad = gradient(entry);
        if (grad.is_none()) continue;
        if (entry.state.is_none()) return false;
        entry.coefficients = numbers_of(i, numbers);
        if (!read(entry, grad, entry.coefficients)) return false;
        work_.hold(std::move(grad));
        stepped_.push_back(i);
    }
    return true;
}

// Reads all entries and where their state is: the latter, which needs no GIL, on another thread, since with many small
// tensors most of a step is waiting for what describes them.
bool TensorPlan::read_all(nb::handle numbers) {
    bool tensors_right = false, slots_right = true;
    std::exception_ptr error;
    const auto read_rest = [&] {
        for (Entry& entry : entries_)
            if (entry.ours && !entry.state.is_none() && !read_slots(entry)) slots_right = false;
    };
    const auto read_here = [&] {
        try {
            tensors_right = read_tensors(numbers);
        } catch (...) {
            error = std::current_exception();
        }
    };
    constexpr std::size_t worth = 64;  // entries
    if (entries_.size() >= worth && have_handles_) {
        beside(read_here, read_rest);
    } else {
        read_here();
        read_rest();
    }
    if (error) std::rethrow_exception(error);
    if (!tensors_right || !slots_right) return false;
    for (const std::size_t i : stepped_)
        for (std::size_t k = 0; k < names_.size() && entries_[i].layout.size > 0; ++k)
            work_.add_written(entries_[i].extents[k]);
    return true;
}

bool TensorPlan::read(nb::list groups, nb::dict all_states, nb::callable numbers) {
    if (busy_) throw std::runtime_error("the optimizer is in a step already: use one per thread");
    struct Busy {  // from here on: `numbers` is Python, which may let another thread in
        bool &flag, stay = false;
        explicit Busy(bool& f) : flag(f) { flag = true; }
        ~Busy() { flag = stay; }
    } busy(busy_);
    work_.begin();
    numbers_.clear();
    stepped_.clear();
    busy.stay = same_groups(groups.ptr()) && same_states(all_states.ptr()) && read_all(numbers) && !work_.overlaps();
    if (!busy.stay) work_.drop();
    return busy.stay;
}

nb::list TensorPlan::run(double factor, nb::object seen) {
    if (!busy_) throw std::runtime_error("run: there is no step that was read");
    if (stepped_ != listed_) {
        list_ = nb::list();
        for (const std::size_t i : stepped_) list_.append(entries_[i].param);
        listed_ = stepped_;
    }
    if (factor != 1.0) work_.scale(factor);
    for (const std::size_t i : stepped_) {
        ++counts_[i];
        for (std::size_t k = 0; k < carried_.size(); ++k)
            carries_[i * carried_.size() + k] = entries_[i].coefficients->rule[carried_[k]];
    }
    work_.run(seen);
    busy_ = false;
    return list_;
}

void TensorPlan::drop() {
    work_.drop();
    busy_ = false;
}

}  // namespace adamas
