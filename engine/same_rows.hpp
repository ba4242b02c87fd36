// Sparse gradients in which a row stands more than once.
#pragma once

#include "work.hpp"

namespace adamas {

// Finds for each row its place among those that differ, in order of appearance; returns how many differ, or -1 - i if
// row i was not stepped last in the present step. last: as of catch_up. places: int32, one for each of rows.
std::int64_t find_same_rows(nb::handle rows, nb::handle last, std::int32_t present, nb::handle places);

// Adds each row of values to that of its place in `sums`, in order: matrices of the same type, float32 or float64.
void add_same_rows(nb::handle places, nb::handle values, nb::handle sums);

}  // namespace adamas
