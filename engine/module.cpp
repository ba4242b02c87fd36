// The module adamas._engine: registers what Python sees.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <iterator>
#include <sstream>

#include "lapses.hpp"
#include "plan.hpp"
#include "runs.hpp"
#include "same_rows.hpp"
#include "tensors.hpp"
#include "traffic.hpp"

namespace adamas {

namespace {

std::vector<std::string> split(const char* words) {
    std::istringstream stream(words);
    return {std::istream_iterator<std::string>(stream), {}};
}

nb::dict rules() {
    nb::dict all;
    const Table& table = active_table();
    for (std::size_t i = 0; i < table.count; ++i)
        all[table.rules[i].name] =
            nb::make_tuple(split(table.rules[i].state_names), split(table.rules[i].coefficients));
    return all;
}

std::vector<std::string> isa_levels() {
    std::vector<std::string> names;
    for (const Table* table : supported()) names.emplace_back(table->isa);
    return names;
}

}  // namespace

NB_MODULE(_engine, m) {
    nb::set_leak_warnings(false);  // an optimizer that is alive when Python exits is no leak
    if (!import_numpy(nb::module_::import_("ml_dtypes").attr("bfloat16").ptr())) throw nb::python_error();
    m.def("rules", &rules);
    m.def("isa_levels", &isa_levels);
    m.def("isa", [] { return std::string(active_table().isa); });
    m.def("use_isa", &use_table);
    m.def("set_num_threads", &set_num_threads);
    m.def("get_num_threads", &get_num_threads);
    m.def("set_flush_denormals", &set_flush_denormals);
    nb::class_<Plan>(m, "Plan")
        .def(nb::init<const std::string&, nb::list, nb::object, std::uint64_t, nb::tuple>(), nb::arg("rule"),
             nb::arg("segments"), nb::arg("skeleton").none(), nb::arg("t"), nb::arg("options"))
        .def("step", &Plan::step, nb::arg("params").none(), nb::arg("grads").none(), nb::arg("coefficients"),
             nb::arg("stages"), nb::arg("t"), nb::arg("judge").none(), nb::arg("watch") = nb::none())
        .def("run", &Plan::run, nb::arg("params"), nb::arg("grads"), nb::arg("coefficients"), nb::arg("stages"),
             nb::arg("t"), nb::arg("judge").none(), nb::arg("watch") = nb::none());
    m.def("step_columns", &step_columns, nb::arg("rule"), nb::arg("numbers"), nb::arg("p"), nb::arg("g"),
          nb::arg("state"));
    m.def("find_same_rows", &find_same_rows, nb::arg("rows"), nb::arg("last"), nb::arg("present"), nb::arg("places"));
    m.def("add_same_rows", &add_same_rows, nb::arg("places"), nb::arg("values"), nb::arg("sums"));
    nb::class_<Traffic>(m, "Traffic").def(nb::init<nb::list>(), nb::arg("passes")).def("run", &Traffic::run);
    nb::class_<Lapses>(m, "Lapses")
        .def(nb::init<const std::string&, std::size_t>(), nb::arg("rule"), nb::arg("capacity"))
        .def_prop_ro("closed", &Lapses::closed)
        .def_prop_ro("count", &Lapses::count)
        .def("record", &Lapses::record, nb::arg("coefficients"), nb::arg("stages"), nb::arg("t"))
        .def("catch_up", &Lapses::catch_up, nb::arg("p"), nb::arg("state"), nb::arg("last"), nb::arg("rows").none(),
             nb::arg("exact"))
        .def("history", &Lapses::history, nb::arg("first"))
        .def("restore", &Lapses::restore, nb::arg("first"), nb::arg("history"));
    nb::class_<TensorPlan>(m, "TensorPlan")
        .def(nb::init<const std::string&, nb::handle, nb::list, nb::list, nb::object, std::vector<std::size_t>,
                      nb::object, nb::dict, nb::object, nb::tuple>(),
             nb::arg("rule"), nb::arg("tensor"), nb::arg("entries"), nb::arg("names"), nb::arg("counts"),
             nb::arg("carried"), nb::arg("carries"), nb::arg("all_states"), nb::arg("make_handles").none(),
             nb::arg("options"))
        .def("others", &TensorPlan::others)
        .def("read", nb::overload_cast<nb::list, nb::dict, nb::callable>(&TensorPlan::read), nb::arg("groups"),
             nb::arg("all_states"), nb::arg("numbers"))
        .def("norm", &TensorPlan::norm)
        .def("run", &TensorPlan::run, nb::arg("factor"), nb::arg("seen") = nb::none())
        .def("drop", &TensorPlan::drop);
}

}  // namespace adamas
