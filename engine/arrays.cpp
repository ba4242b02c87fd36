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

namespace {

int bfloat16 = -1;  // the number that NumPy gave to ml_dtypes' type

// The format of a NumPy type; false if the engine has none for it.
bool read_type(int number, Array& to) {
    switch (number) {
        case NPY_DOUBLE:
        case NPY_CDOUBLE:
            to.type = Type::float64;
            break;
        case NPY_FLOAT:
        case NPY_CFLOAT:
            to.type = Type::float32;
            break;
        case NPY_HALF:
            to.type = Type::float16;
            break;
        case NPY_UBYTE:
            to.type = Type::q8;
            break;
        default:
            if (number != bfloat16) return false;
            to.type = Type::bfloat16;
    }
    to.complex = number == NPY_CDOUBLE || number == NPY_CFLOAT;
    return true;
}

}  // namespace

bool import_numpy(PyObject* bfloat16_type) {
    if (_import_array() < 0) return false;
    PyArray_Descr* descr = PyArray_DescrFromTypeObject(bfloat16_type);
    if (!descr) return false;
    bfloat16 = descr->type_num;
    Py_DECREF(descr);
    return true;
}

PyArrayObject* as_array(PyObject* object) {
    return PyArray_Check(object) ? reinterpret_cast<PyArrayObject*>(object) : nullptr;
}

bool read_array(PyObject* object, Array& to) {
    PyArrayObject* array = as_array(object);
    if (!array) return false;
    const PyArray_Descr* descr = PyArray_DESCR(array);
    if (!PyArray_ISNBO(descr->byteorder)) return false;
    if (!read_type(descr->type_num, to)) return false;
    static_assert(sizeof(npy_intp) == sizeof(std::int64_t));
    to.data = PyArray_BYTES(array);
    to.axes = PyArray_NDIM(array);
    to.shape = reinterpret_cast<const std::int64_t*>(PyArray_DIMS(array));
    to.strides = reinterpret_cast<const std::int64_t*>(PyArray_STRIDES(array));
    to.unit = 1;
    to.writeable = PyArray_ISWRITEABLE(array);
    return true;
}

namespace {

bool is_vector(PyArrayObject* array, int type) {
    return array && PyArray_TYPE(array) == type && PyArray_NDIM(array) == 1 && PyArray_ISCARRAY_RO(array);
}

}  // namespace

bool read_rows(PyObject* object, Rows& to) {
    PyArrayObject* array = as_array(object);
    if (!is_vector(array, NPY_INT64)) return false;
    to = {static_cast<const std::int64_t*>(PyArray_DATA(array)), static_cast<std::size_t>(PyArray_SIZE(array))};
    return true;
}

bool read_counts(PyObject* object, std::int32_t*& to, std::size_t& count) {
    PyArrayObject* array = as_array(object);
    if (!is_vector(array, NPY_INT32) || !PyArray_ISWRITEABLE(array)) return false;
    to = static_cast<std::int32_t*>(PyArray_DATA(array));
    count = static_cast<std::size_t>(PyArray_SIZE(array));
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

Layout::Layout(const Array& array, const Array* model)
    : type(array.type),
      complex(array.complex),
      size(array.complex ? 2 : 1),
      shape(array.shape, array.shape + array.axes),
      order(shape.size()),
      strides(shape.size()) {
    std::iota(order.begin(), order.end(), 0);
    if (model)
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return std::abs(model->stride(a)) > std::abs(model->stride(b)); });
    std::int64_t stride = 1;
    for (auto axis = order.rbegin(); axis != order.rend(); stride *= shape[*axis++]) strides[*axis] = stride;
    for (const std::int64_t n : shape) size *= static_cast<std::size_t>(n);
}

}  // namespace adamas
