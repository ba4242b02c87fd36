// NumPy arrays and numbers, as the plan reads them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL adamas_numpy
#ifndef ADAMAS_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "engine.hpp"

namespace adamas {

// Loads NumPy's functions; false with a Python error set if that fails.
bool import_numpy();

// The object as an array, null if it is none.
PyArrayObject* as_array(PyObject* object);

// The type of an array's elements; false if the engine has none for it, as for foreign byte order.
bool find_type(PyArrayObject* array, Type& type);

// The memory between an array's first and last byte.
using Extent = std::pair<const char*, const char*>;
Extent extent(PyArrayObject* array);

// Whether two elements of an array may share memory, as in a broadcast view.
bool overlaps_itself(PyArrayObject* array);

// A Python or NumPy number as a double; false for anything else, bool included.
bool read_double(PyObject* object, double& to);

// The shape of a parameter, and the memory order of its state.
struct Layout {
    Type type = Type::float32;
    std::size_t size = 1;
    std::vector<std::int64_t> shape;    // as the user sees it
    std::vector<int> order;             // axes from the slowest to the fastest
    std::vector<std::int64_t> strides;  // of a dense array in that order: bytes per axis of `shape`

    Layout() = default;
    Layout(PyArrayObject* array, PyArrayObject* model);  // the shape and type of array, the order of model

    bool fits(PyArrayObject* array) const;              // whether an array has this shape
    bool dense(PyArrayObject* array, Type type) const;  // whether one that fits also has this type and order
};

}  // namespace adamas
