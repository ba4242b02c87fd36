#include "same_rows.hpp"

#include <stdexcept>

namespace adamas {

namespace {

// Whether thread i of n is the one for a row: any rows are shared out evenly, and each always has the same thread.
bool mine(std::int64_t row, int i, int n) {
    const auto hash = static_cast<std::uint32_t>((static_cast<std::uint64_t>(row) * 0x9E3779B97F4A7C15u) >> 32);
    return n == 1 || static_cast<int>((static_cast<std::uint64_t>(hash) * n) >> 32) == i;
}

}  // namespace

std::int64_t find_same_rows(nb::handle rows, nb::handle last, std::int32_t present, nb::handle places) {
    Rows all;
    std::int32_t *steps, *to;
    std::size_t height, count;
    if (!read_rows(rows.ptr(), all) || !read_counts(last.ptr(), steps, height) ||
        !read_counts(places.ptr(), to, count) || count != all.count || !all.inside(static_cast<std::int64_t>(height)))
        throw std::invalid_argument("int64 rows, the last step of each row of the table, and int32 places");
    std::int32_t different = 0;
    std::size_t end = 0;
    for (; end < count; ++end) {  // what was seen is marked by its place, below zero
        std::int32_t& step = steps[all.data[end]];
        if (step >= 0 && step != present) break;
        if (step >= 0) step = -1 - different++;
        to[end] = -1 - step;
    }
    for (std::size_t i = 0; i < end; ++i) steps[all.data[i]] = present;
    return end == count ? different : -1 - static_cast<std::int64_t>(end);
}

void add_same_rows(nb::handle places, nb::handle values, nb::handle sums) {
    std::int32_t* to;
    std::size_t count;
    Array from, total;
    if (!read_counts(places.ptr(), to, count) || !read_array(values.ptr(), from) || !read_array(sums.ptr(), total) ||
        from.type != total.type || from.axes == 0 || from.shape[0] != static_cast<std::int64_t>(count) ||
        !Layout(from, nullptr).dense(from) || !Layout(total, nullptr).dense(total) ||
        (from.type != Type::float32 && from.type != Type::float64))
        throw std::invalid_argument("places, and matrices of values and of their sums");
    const std::size_t width = count ? Layout(from, nullptr).size / count : 0;
    const auto add = [&](auto zero) {
        using T = decltype(zero);
        const int n = threads_for(count * width);
        in_parallel(n, [&](int thread) {
            for (std::size_t i = 0; i < count; ++i) {
                if (!mine(to[i], thread, n)) continue;
                const T* const value = reinterpret_cast<const T*>(from.data) + i * width;
                T* const sum = reinterpret_cast<T*>(total.data) + static_cast<std::size_t>(to[i]) * width;
                for (std::size_t k = 0; k < width; ++k) sum[k] += value[k];
            }
        });
    };
    nb::gil_scoped_release released;
    from.type == Type::float32 ? add(float{}) : add(double{});
}

}  // namespace adamas
