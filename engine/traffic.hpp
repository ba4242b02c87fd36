// What memory allows a step: its reads and writes, without its arithmetic. The benchmarks measure it.
#pragma once

#include <vector>

#include "work.hpp"

namespace adamas {

// Passes over memory, as a step makes them (see _engine.pyi).
class Traffic {
public:
    explicit Traffic(nb::list passes);  // throws std::invalid_argument

    void run() const;

private:
    using Pass = std::vector<std::vector<Region>>;  // regions that are read side by side

    nb::list held_;
    std::vector<Pass> passes_;
};

}  // namespace adamas
