#define ADAMAS_IMPORTS_NUMPY
#include "arrays.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace adamas {

bool import_numpy() {
    return _import_array() >= 0;
}

PyArrayObject* as_array(PyObject* object) {
    return PyArray_Check(object) ? reinterpret_cast<PyArrayObject*>(object) : nullptr;
}

bool find_type(PyArrayObject* array, Type& type) {
    const PyArray_Descr* descr = PyArray_DESCR(array);
    if (!PyArray_ISNBO(descr->byteorder)) return false;
    type = descr->type_num == NPY_FLOAT ? Type::float32 : Type::float64;
    return descr->type_num == NPY_FLOAT || descr->type_num == NPY_DOUBLE;
}

Extent extent(PyArrayObject* array) {
    const char* low = PyArray_BYTES(array);
    const char* high = low + PyArray_ITEMSIZE(array);
    for (int axis = 0; axis < PyArray_NDIM(array); ++axis) {
        const npy_intp reach = (PyArray_DIM(array, axis) - 1) * PyArray_STRIDE(array, axis);
        (reach < 0 ? low : high) += reach;
    }
    return {low, high};
}

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

bool read_double(PyObject* object, double& to) {
    if (PyFloat_Check(object)) {
        to = PyFloat_AS_DOUBLE(object);
        return true;
    }
    PyArrayObject* array = as_array(object);
    const bool single = array && PyArray_NDIM(array) == 0 && PyArray_ISFLOAT(array);
    if (!PyLong_CheckExact(object) && !PyArray_IsScalar(object, Floating) && !single) return false;
    to = PyFloat_AsDouble(object);
    if (to == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    return true;
}

Layout::Layout(PyArrayObject* array, PyArrayObject* model)
    : shape(PyArray_DIMS(array), PyArray_DIMS(array) + PyArray_NDIM(array)),
      order(shape.size()),
      strides(shape.size()) {
    find_type(array, type);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return std::abs(PyArray_STRIDE(model, a)) > std::abs(PyArray_STRIDE(model, b));
    });
    std::int64_t stride = PyArray_ITEMSIZE(array);
    for (auto axis = order.rbegin(); axis != order.rend(); stride *= shape[*axis++]) strides[*axis] = stride;
    for (const std::int64_t n : shape) size *= static_cast<std::size_t>(n);
}

bool Layout::fits(PyArrayObject* array) const {
    return PyArray_NDIM(array) == static_cast<int>(shape.size()) &&
           std::equal(shape.begin(), shape.end(), PyArray_DIMS(array));
}

bool Layout::dense(PyArrayObject* array, Type its_type) const {
    if (its_type != type || !PyArray_ISALIGNED(array)) return false;
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
        if (shape[axis] > 1 && PyArray_STRIDE(array, static_cast<int>(axis)) != strides[axis]) return size == 0;
    return true;
}

}  // namespace adamas
