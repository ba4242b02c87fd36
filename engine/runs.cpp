#include "runs.hpp"

#include <stdexcept>

namespace adamas {

namespace {

// The numbers of an array of so many rows and runs; throws std::invalid_argument.
double* read_columns(nb::handle object, std::size_t rows, std::size_t runs, bool written) {
    PyArrayObject* array = as_array(object.ptr());
    const bool right = array && PyArray_TYPE(array) == NPY_DOUBLE && PyArray_ISCARRAY_RO(array) &&
                       PyArray_SIZE(array) == static_cast<npy_intp>(rows * runs) &&
                       (!written || PyArray_ISWRITEABLE(array));
    if (!right) throw std::invalid_argument("numbers, p, g and state: float64 in C order, of as many runs");
    return static_cast<double*>(PyArray_DATA(array));
}

}  // namespace

void step_columns(const std::string& rule, nb::handle numbers, nb::handle p, nb::handle g, nb::tuple state) {
    const std::size_t index = find_rule(rule);
    const Work work(rule, {});
    PyArrayObject *given = as_array(numbers.ptr()), *points = as_array(p.ptr());
    if (!given || PyArray_NDIM(given) != 2 || !points || state.size() != work.slot_count())
        throw std::invalid_argument("numbers: a matrix; p: an array; state: one for each that the rule has");
    Columns columns;
    columns.runs = static_cast<std::size_t>(PyArray_DIM(given, 1));
    if (columns.runs == 0) return;
    columns.size = static_cast<std::size_t>(PyArray_SIZE(points)) / columns.runs;
    columns.numbers = read_columns(numbers, work.coefficient_count() + 3, columns.runs, false);
    columns.p = read_columns(p, columns.size, columns.runs, true);
    columns.g = read_columns(g, columns.size, columns.runs, false);
    for (std::size_t i = 0; i < state.size(); ++i)
        columns.state[i] = read_columns(state[i], columns.size, columns.runs, true);
    run(active_table(), index, columns);
}

}  // namespace adamas
