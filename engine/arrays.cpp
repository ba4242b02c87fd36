#define ADAMAS_IMPORTS_NUMPY
#include "arrays.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace adamas {

bool Array::overlaps_itself() const {
    std::vector<std::pair<std::int64_t, std::int64_t>> by_stride;  // stride, extent
    for (int axis = 0; axis < axes; ++axis)
        if (shape[axis] > 1) by_stride.emplace_back(std::abs(stride(axis)), shape[axis]);
    std::sort(by_stride.begin(), by_stride.end());
    std::int64_t reach = itemsize();
    for (const auto& [stride, extent] : by_stride) {
        if (stride < reach) return true;
        reach += stride * (extent - 1);
    }
    return false;
}

bool import_numpy() {
    return _import_array() >= 0;
}

PyArrayObject* as_array(PyObject* object) {
    return PyArray_Check(object) ? reinterpret_cast<PyArrayObject*>(object) : nullptr;
}

bool read_array(PyObject* object, Array& to) {
    PyArrayObject* array = as_array(object);
    if (!array) return false;
    const PyArray_Descr* descr = PyArray_DESCR(array);
    if (!PyArray_ISNBO(descr->byteorder)) return false;
    if (descr->type_num != NPY_FLOAT && descr->type_num != NPY_DOUBLE) return false;
    static_assert(sizeof(npy_intp) == sizeof(std::int64_t));
    to.data = PyArray_BYTES(array);
    to.type = descr->type_num == NPY_FLOAT ? Type::float32 : Type::float64;
    to.axes = PyArray_NDIM(array);
    to.shape = reinterpret_cast<const std::int64_t*>(PyArray_DIMS(array));
    to.strides = reinterpret_cast<const std::int64_t*>(PyArray_STRIDES(array));
    to.unit = 1;
    to.writeable = PyArray_ISWRITEABLE(array);
    return true;
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

Layout::Layout(const Array& array, const Array& model)
    : type(array.type), shape(array.shape, array.shape + array.axes), order(shape.size()), strides(shape.size()) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return std::abs(model.stride(a)) > std::abs(model.stride(b)); });
    std::int64_t stride = array.itemsize();
    for (auto axis = order.rbegin(); axis != order.rend(); stride *= shape[*axis++]) strides[*axis] = stride;
    for (const std::int64_t n : shape) size *= static_cast<std::size_t>(n);
}

}  // namespace adamas
