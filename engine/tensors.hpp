// The tensors of an optimizer of PyTorch, read through DLPack's C exchange: memory, type, shape and strides, at the
// cost of a function call, and without linking to PyTorch.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "handles.hpp"
#include "work.hpp"

namespace adamas {

// What reads the tensors of one library: its exchange table, of DLPack 1.x.
class Exchange {
public:
    // type: the library's class of tensors, with __dlpack_c_exchange_api__. Throws std::invalid_argument if it lacks
    // that or speaks another version.
    explicit Exchange(nb::handle type);

    // Reads a tensor on the CPU of a type that the engine has; false for any other. The object must be a tensor.
    bool read(PyObject* tensor, Array& to) const;

private:
    int (*from_object_)(void* object, void* to) = nullptr;
};

// The steps of the parameters in some groups of an optimizer that share a rule. Everything is looked at anew in each
// step: that groups and state hold the same objects, and where the memory of each tensor is.
class TensorPlan {
public:
    // tensor: the library's class of tensors. entries: for each parameter of the groups (group, parameter, its state as
    // a dict, None if it has none yet, the tensor that shows its count of steps there, or None, and whether the engine
    // may step it, its place among all parameters of the optimizer, and the number of its first block there). names: of
    // what is remembered, in the rule's order, then the average and the copy, if there are. counts: float64 array, the
    // steps taken by each entry.
    // carried: the places of the coefficients that live across steps. carries: float64 array, those of each entry.
    // all_states: the dict of states. make_handles: returns a capsule with a new reference for each tensor of a list;
    // None if there is no such function. options: see Options.
    TensorPlan(const std::string& rule, nb::handle tensor, nb::list entries, nb::list names, nb::object counts,
               std::vector<std::size_t> carried, nb::object carries, nb::dict all_states, nb::object make_handles,
               nb::tuple options);
    TensorPlan(const TensorPlan&) = delete;
    TensorPlan& operator=(const TensorPlan&) = delete;

    // The entries that have a gradient and that the engine does not step: for their type, layout, device, or because
    // they share memory with others.
    const std::vector<std::size_t>& others() const { return others_; }

    // Reads every parameter that has a gradient, but for the others, for a step that run() takes; false if something is
    // not as it was learned. groups: the optimizer's list of dicts. numbers(group, t, carry) returns the rule's
    // coefficients of step t and the stages; carry is a tuple of what lives across steps. It is called once for each t
    // and carry among the parameters of a group.
    bool read(nb::list groups, nb::dict all_states, nb::callable numbers);

    // The norm of the gradients that were read, and whether they are finite.
    std::pair<double, bool> norm() { return work_.norm(); }

    // Takes the step that was read, with the gradients multiplied by a factor; returns the list of the parameters.
    nb::list run(double factor, nb::object seen);

    // Forgets what was read.
    void drop();

private:
    // An item of a dict that must stay where it is. To walk a small dict is faster than to look up its keys.
    struct Slot {
        std::size_t place;
        nb::object key, value;
    };
    struct Entry {
        std::size_t group;
        nb::object param, state, count;  // state and count: None as long as there are none
        std::vector<Slot> slots;         // of the state that the rule needs, and of the count, by place
        std::vector<PyObject*> values;   // of the slots, in the rule's order
        std::vector<Handle> handles;     // of the values, if there are handles
        bool ours = true;
        Layout layout;
        Slots memory;                           // of the current step: where the values are
        std::array<Extent, max_slots> extents;  // and what each covers
        const Coefficients* coefficients = nullptr;
    };
    struct Numbers {
        std::size_t entry;  // the first that they are of
        const Coefficients* coefficients;
    };

    bool same_groups(PyObject* groups) const;
    bool same_states(PyObject* all_states) const;
    nb::object gradient(const Entry& entry) const;
    bool lazy(const Layout& layout, const Array& array, PyObject* tensor) const;
    bool find(Entry& entry) const;
    bool same_state(const Entry& entry) const;
    bool read_slots(Entry& entry) const;
    bool read(Entry& entry, nb::object& gradient, const Coefficients* coefficients);
    void prefetch(std::size_t i) const;
    bool read_all(nb::handle numbers);
    bool read_tensors(nb::handle numbers);
    void choose(const nb::object& make_handles);
    const double* carry(std::size_t i) const { return carries_ + i * carried_.size(); }
    bool same_numbers(std::size_t i, std::size_t k) const;
    const Coefficients* numbers_of(std::size_t i, nb::handle numbers);

    Exchange exchange_;
    Work work_;
    nb::object plain_;               // the exact type of gradients and state
    nb::object gradient_of_;         // the descriptor of its attribute grad
    std::vector<nb::object> names_;  // of the state
    std::vector<Entry> entries_;     // in the order of the groups
    std::vector<std::pair<std::size_t, std::size_t>>
        groups_;                                             // group, number of its parameters, in the order of entries
    std::vector<std::pair<nb::object, nb::object>> states_;  // keys and values of all states
    nb::object counts_owner_;
    double* counts_;
    std::vector<std::size_t> carried_;
    nb::object carries_owner_;
    double* carries_;  // a row for each entry
    std::vector<std::size_t> others_;
    bool have_handles_ = false;

    // Of the current step.
    bool busy_ = false;  // from read() to the end of run()
    std::vector<Numbers> numbers_;
    std::vector<std::size_t> stepped_, listed_;  // entries with a gradient; those that list_ is of
    nb::list list_;
};

}  // namespace adamas
