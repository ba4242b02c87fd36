// Tensors by way of PyTorch's C interface for compiled models, which is promised to stay as it is ("shim.h"). It is
// found in the library that is loaded already, so nothing links to PyTorch. A third of the time of DLPack's exchange.
#pragma once

#include <utility>

#include "arrays.hpp"

namespace adamas {

// A reference to a tensor, as the C interface has it.
class Handle {
public:
    // Whether there is such an interface in this process.
    static bool available();

    explicit Handle(void* tensor) : tensor_(tensor) {}  // takes the reference over
    Handle(Handle&& other) noexcept : tensor_(std::exchange(other.tensor_, nullptr)) {}
    Handle& operator=(Handle&&) = delete;
    ~Handle();

    // Reads a tensor on the CPU of a type that the engine has; false for any other.
    bool read(Array& to) const;

    // Ask the cache for what read() will look at, the handle first. Only a hint: that a handle points to a tensor is
    // how PyTorch does it, and were it not so it would be of no use and do no harm.
    void prefetch_handle() const { __builtin_prefetch(tensor_); }
    void prefetch_tensor() const {
        const char* inner = *static_cast<const char* const*>(tensor_);
        for (std::size_t line = 0; line < 4; ++line) __builtin_prefetch(inner + 64 * line);
    }

private:
    void* tensor_;
};

}  // namespace adamas
