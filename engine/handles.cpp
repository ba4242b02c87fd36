#include "handles.hpp"

#include <dlfcn.h>

namespace adamas {

namespace {

// Functions of the C interface by their names there, without "aoti_torch_". All but those without arguments return 0
// for success.
struct Shim {
    int (*get_data_ptr)(void*, void**) = nullptr;
    int (*get_dim)(void*, std::int64_t*) = nullptr;
    int (*get_sizes)(void*, std::int64_t**) = nullptr;
    int (*get_strides)(void*, std::int64_t**) = nullptr;
    int (*get_dtype)(void*, std::int32_t*) = nullptr;
    int (*get_device_type)(void*, std::int32_t*) = nullptr;
    int (*delete_tensor_object)(void*) = nullptr;
    std::int32_t float64 = 0, float32 = 0, bfloat16 = 0, float16 = 0, uint8 = 0;
    std::int32_t complex128 = 0, complex64 = 0, cpu = 0;
    bool complete = false;

    Shim() {
        void* library = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY);
        if (!library) return;
        std::int32_t (*code)() = nullptr;
        const auto find = [&](const char* name, auto& function) {
            function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
            return function != nullptr;
        };
        const auto find_code = [&](const char* name, std::int32_t& to) {
            const bool found = find(name, code);
            if (found) to = code();
            return found;
        };
        complete = find("aoti_torch_get_data_ptr", get_data_ptr) && find("aoti_torch_get_dim", get_dim) &&
                   find("aoti_torch_get_sizes", get_sizes) && find("aoti_torch_get_strides", get_strides) &&
                   find("aoti_torch_get_dtype", get_dtype) && find("aoti_torch_get_device_type", get_device_type) &&
                   find("aoti_torch_delete_tensor_object", delete_tensor_object) &&
                   find_code("aoti_torch_dtype_float64", float64) && find_code("aoti_torch_dtype_float32", float32) &&
                   find_code("aoti_torch_dtype_bfloat16", bfloat16) && find_code("aoti_torch_dtype_float16", float16) &&
                   find_code("aoti_torch_dtype_uint8", uint8) && find_code("aoti_torch_dtype_complex128", complex128) &&
                   find_code("aoti_torch_dtype_complex64", complex64) && find_code("aoti_torch_device_type_cpu", cpu);
    }
};

const Shim& shim() {
    static const Shim found;
    return found;
}

// The format of a type of PyTorch; false if the engine has none for it.
bool read_type(std::int32_t code, Array& to) {
    const Shim& torch = shim();
    to.complex = code == torch.complex128 || code == torch.complex64;
    if (code == torch.float64 || code == torch.complex128) {
        to.type = Type::float64;
    } else if (code == torch.float32 || code == torch.complex64) {
        to.type = Type::float32;
    } else {
        to.type = code == torch.bfloat16 ? Type::bfloat16 : code == torch.float16 ? Type::float16 : Type::q8;
        return code == torch.bfloat16 || code == torch.float16 || code == torch.uint8;
    }
    return true;
}

}  // namespace

bool Handle::available() {
    return shim().complete;
}

Handle::~Handle() {
    if (tensor_) shim().delete_tensor_object(tensor_);
}

bool Handle::read(Array& to) const {
    const Shim& torch = shim();
    std::int64_t axes, *shape, *strides;
    std::int32_t type, device;
    void* data;
    if (torch.get_device_type(tensor_, &device) || device != torch.cpu || torch.get_dtype(tensor_, &type) ||
        !read_type(type, to) || torch.get_dim(tensor_, &axes) || torch.get_sizes(tensor_, &shape) ||
        torch.get_strides(tensor_, &strides) || torch.get_data_ptr(tensor_, &data))
        return false;
    to.data = static_cast<char*>(data);
    to.axes = static_cast<int>(axes);
    to.shape = shape;
    to.strides = strides;
    to.unit = to.itemsize();
    return true;
}

}  // namespace adamas
