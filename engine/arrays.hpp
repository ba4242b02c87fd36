// Arrays and numbers of Python objects, as the plans read them.
#pragma once

#include <algorithm>
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

// The memory between an array's first and last byte.
using Extent = std::pair<const char*, const char*>;

// An array in memory, whoever owns it: NumPy's, or a tensor (tensors.hpp). Valid while the owner is not changed.
struct Array {
    char* data = nullptr;
    Type type = Type::float32;
    bool complex = false;  // pairs of numbers of that type
    int axes = 0;
    const std::int64_t* shape = nullptr;
    const std::int64_t* strides = nullptr;  // in units of
    std::int64_t unit = 1;                  // bytes
    bool writeable = true;

    std::int64_t stride(int axis) const { return strides[axis] * unit; }
    std::int64_t itemsize() const { return adamas::itemsize(type) * (complex ? 2 : 1); }
    Extent extent() const;
    bool overlaps_itself() const;  // whether two elements may share memory, as in a broadcast view
};

// Loads NumPy's functions, and learns ml_dtypes' type of bfloat16; false with a Python error set if that fails.
bool import_numpy(PyObject* bfloat16_type);

// The object as a NumPy array, null if it is none.
PyArrayObject* as_array(PyObject* object);

// Reads a NumPy array; false for anything else, and for types that the engine has none for, as in foreign byte order.
// Bytes are q8.
bool read_array(PyObject* object, Array& to);

// The places of rows in a table.
struct Rows {
    const std::int64_t* data = nullptr;
    std::size_t count = 0;

    bool inside(std::int64_t size) const {
        return std::all_of(data, data + count, [size](std::int64_t row) { return 0 <= row && row < size; });
    }
};

// Reads a vector of int64 that is dense; false for anything else.
bool read_rows(PyObject* object, Rows& to);

// The same of int32 that may be written.
bool read_counts(PyObject* object, std::int32_t*& to, std::size_t& count);

// A Python or NumPy number as a double; false for anything else, bool included.
bool read_double(PyObject* object, double& to);

// The shape of a parameter, and the memory order of its state.
struct Layout {
    Type type = Type::float32;
    bool complex = false;
    std::size_t size = 1;               // real numbers
    std::vector<std::int64_t> shape;    // as the user sees it
    std::vector<int> order;             // axes from the slowest to the fastest
    std::vector<std::int64_t> strides;  // of a dense array in that order: items per axis of `shape`

    Layout() = default;
    Layout(const Array& array, const Array* model);  // the shape and type of array, the order of model, C if null

    bool fits(const Array& array) const;   // whether an array has this shape, of any format
    bool dense(const Array& array) const;  // whether one that fits also has this order
};

// What follows is called for every array in every step.

inline Extent Array::extent() const {
    const char *low = data, *high = data + itemsize();
    for (int axis = 0; axis < axes; ++axis) {
        if (shape[axis] == 0) return {data, data};  // which may be null
        const std::int64_t reach = (shape[axis] - 1) * stride(axis);
        (reach < 0 ? low : high) += reach;
    }
    return {low, high};
}

inline bool Layout::fits(const Array& array) const {
    return array.complex == complex && array.axes == static_cast<int>(shape.size()) &&
           std::equal(shape.begin(), shape.end(), array.shape);
}

inline bool Layout::dense(const Array& array) const {
    const auto alignment = static_cast<std::uintptr_t>(adamas::itemsize(array.type));
    if (reinterpret_cast<std::uintptr_t>(array.data) % alignment != 0) return false;
    const std::int64_t itemsize = array.itemsize();
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
        if (shape[axis] > 1 && array.stride(static_cast<int>(axis)) != strides[axis] * itemsize) return size == 0;
    return true;
}

}  // namespace adamas
