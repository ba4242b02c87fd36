#include "traffic.hpp"

#include <stdexcept>

namespace adamas {

namespace {

constexpr std::size_t tile_bytes = 1024;  // of the largest region that is read side by side with others

std::size_t tiles_of(const std::vector<Region>& regions) {
    std::size_t most = 0;
    for (const Region& region : regions) most = std::max(most, region.size);
    return (most + tile_bytes - 1) / tile_bytes;
}

Region read_region(nb::handle object, bool written) {
    PyArrayObject* array = as_array(object.ptr());
    if (!array || PyArray_TYPE(array) != NPY_UINT8 || !PyArray_ISCARRAY(array))
        throw std::invalid_argument("passes: arrays of uint8 in C order that may be written");
    return {static_cast<char*>(PyArray_DATA(array)), static_cast<std::size_t>(PyArray_SIZE(array)), written};
}

}  // namespace

Traffic::Traffic(nb::list passes) : held_(passes) {
    for (nb::handle groups : passes) {
        Pass& pass = passes_.emplace_back();
        for (nb::handle group : groups) {
            std::vector<Region>& regions = pass.emplace_back();
            for (nb::handle item : group) regions.push_back(read_region(item[0], nb::cast<bool>(item[1])));
        }
    }
}

void Traffic::run() const {
    const nb::gil_scoped_release released;
    for (const Pass& pass : passes_) {
        std::size_t total = 0;
        for (const auto& regions : pass) total += tiles_of(regions);
        const int n = threads_for(total * tile_bytes / sizeof(float));
        in_parallel(n, [&](int i) {
            const std::size_t first = total * i / n, last = total * (i + 1) / n;
            std::size_t start = 0;
            for (const auto& regions : pass) {
                const std::size_t tiles = tiles_of(regions), end = std::min(last - std::min(last, start), tiles);
                const std::size_t begin = std::min(first - std::min(first, start), tiles);
                if (begin < end) active_table().move(regions.data(), regions.size(), begin, end, tiles);
                start += tiles;
            }
        });
    }
}

}  // namespace adamas
