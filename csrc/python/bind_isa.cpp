// Which instruction sets there are, and which one computes.
#include <nanobind/stl/string.h>

#include <cstdlib>

#include "isa/registry.h"
#include "python/module.h"

namespace nb = nanobind;

namespace torchgguf {

void bind_isa(nb::module_& m) {
    if (const char* name = std::getenv("TORCHGGUF_ISA")) use_backend(name, "TORCHGGUF_ISA");

    m.def(
        "isas",
        [] {
            nb::typed<nb::list, nb::str> names;
            for (const Backend* row : backends()) names.append(row->name);
            return names;
        },
        "List the instruction sets that were compiled in and that this CPU supports, the best one last.");
    m.def("isa", [] { return active_backend().name; }, "Return the name of the instruction set in use.");
    m.def(
        "set_isa", [](const std::string& name) { use_backend(name, "the instruction set"); }, nb::arg("name"),
        "Use another one of `isas()`, in all threads. TORCHGGUF_ISA chooses one at load.");
    m.def("has_native_bf16", &has_native_bf16, "Return whether the CPU multiplies BF16 in hardware.");
}

}  // namespace torchgguf
