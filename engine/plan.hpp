// From Python objects to blocks: what an optimizer remembers of its parameter tree, so that a step only looks at
// pointers. It recognises what it has seen; whatever is new or wrong it declines, and Python, which has the words for
// it, checks everything again and says what is the matter.
#pragma once

#include <string>
#include <vector>

#include "work.hpp"

namespace adamas {

// An array of the tree, or all the Python floats of a group packed into one array.
struct Segment {
    std::size_t group = 0;
    Layout layout;
    std::vector<nb::object> owners;  // of the memory of `slots`
    Slots slots;
    double* numbers = nullptr;  // packed floats: their memory, owned by `keep`
    std::vector<double> number_grads;
    nb::object keep;
};

// A node of the parameter tree.
struct Node {
    enum Kind { unknown, list, tuple, dict, leaf } kind = unknown;
    std::vector<Node> children;
    std::vector<nb::object> keys;        // of a dict
    std::size_t segment = 0, index = 0;  // of a leaf: its segment and, if that packs floats, its place in it
    nb::object convert = nb::none();     // of a float: the type that it comes back as, None for float
    bool has_numbers = false;            // whether any leaf below is a float
};

class Plan {
public:
    // segments: list of (group, array like the parameter, tuple of the arrays that are remembered of it, whether it
    // packs floats); t: the steps taken so far. skeleton: the parameter tree with an object with .segment, .index,
    // .convert in place of each leaf, None if it has nodes that are walked in Python. options: see Options.
    Plan(const std::string& rule, nb::list segments, nb::object skeleton, std::uint64_t t, nb::tuple options);

    // Takes step t of a tree; returns it, or None if it is not recognised: then nothing has changed. Per group there is
    // a dict of the rule's coefficients in its order, and the stages. judge(norm, finite), unless None, is called with
    // the norm of all gradients, and whether they are finite; it returns what to multiply them by, or None, and then
    // nothing changes and False is returned. watch: None, or what has begin(), called before anything is changed, and a
    // list `seen`: see Work::run.
    nb::object step(nb::object params, nb::object grads, nb::tuple coefficients, nb::tuple stages, std::uint64_t t,
                    nb::object judge, nb::object watch);

    // Takes step t of one array per segment, gradients None where there are none. The caller has checked them. Returns
    // whether the judge let it be taken.
    bool run(nb::list params, nb::list grads, nb::tuple coefficients, nb::tuple stages, std::uint64_t t,
             nb::object judge, nb::object watch);

private:
    bool read(const Node& node, PyObject* p, PyObject* g, bool top);
    bool read_number(const Node& node, PyObject* p, PyObject* g);
    bool read_arrays(Segment& segment, PyObject* p, PyObject* g);
    nb::object write(const Node& node, nb::handle p) const;
    void begin(nb::tuple coefficients, nb::tuple stages, std::uint64_t t);
    bool begins(nb::handle judge, nb::handle watch);

    Work work_;
    bool asking_ = false;  // Python, whether and how a step is taken
    std::uint64_t t_;
    std::vector<Segment> segments_;
    std::vector<const Coefficients*> coefficients_;  // of the current step, by group
    Node root_;
};

}  // namespace adamas
