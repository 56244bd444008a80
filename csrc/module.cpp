// The Python module torchgguf._native: one bind_* function for each part, each in its own bind_*.cpp.
#include "module.h"

#include <stdexcept>
#include <string>

#include "cpu_features.h"

namespace nb = nanobind;

namespace torchgguf {
namespace {

constexpr const char* kIsaNames[] = {"scalar", "avx2", "avx512"};

void use_isa(const std::string& name) {
    for (int i = 0; i < 3; ++i) {
        if (name != kIsaNames[i]) continue;
        if (!set_isa(static_cast<Isa>(i))) throw std::runtime_error("this CPU cannot run " + name);
        return;
    }
    throw std::invalid_argument("unknown instruction set " + name);
}

void bind_cpu(nb::module_& m) {
    m.def("isa", [] { return kIsaNames[static_cast<int>(active_isa())]; });
    m.def("best_isa", [] { return kIsaNames[static_cast<int>(best_isa())]; });
    m.def("set_isa", &use_isa, nb::arg("name"));
    m.def("has_native_bf16", &has_native_bf16);
}

}  // namespace
}  // namespace torchgguf

NB_MODULE(_native, m) {
    torchgguf::bind_cpu(m);
    torchgguf::bind_container(m);
    torchgguf::bind_linear(m);
    torchgguf::bind_quants(m);
}
