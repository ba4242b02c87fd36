// Runs side by side, as Python hands them over.
#pragma once

#include <string>

#include "work.hpp"

namespace adamas {

// Takes a step of each (see _engine.pyi). Throws std::invalid_argument, with nothing changed, for what is not such.
void step_columns(const std::string& rule, nb::handle numbers, nb::handle p, nb::handle g, nb::tuple state);

}  // namespace adamas
