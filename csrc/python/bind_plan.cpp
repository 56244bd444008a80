// Programs, for Python. Tensors come as addresses: whoever records a program keeps their memory alive and in place.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "plan/program.h"
#include "python/module.h"

namespace nb = nanobind;

namespace torchgguf {
namespace {

using plan::Program;
using Described = std::tuple<uint64_t, int, std::vector<int64_t>, std::vector<int64_t>>;

plan::Operand operand(const std::string& op, const Described& described) {
    const auto& [address, dtype, sizes, strides] = described;
    if (dtype < 0 || dtype >= plan::kDTypes) throw std::invalid_argument(op + ": there is no such dtype");
    if (sizes.size() > plan::kMaxDims || sizes.size() != strides.size()) {
        throw std::invalid_argument(op + ": a tensor must have at most 6 sizes, and as many strides");
    }
    plan::Operand result;
    result.data = reinterpret_cast<uint8_t*>(static_cast<std::uintptr_t>(address));
    result.dtype = static_cast<plan::DType>(dtype);
    result.ndim = static_cast<int>(sizes.size());
    int64_t elements = 1;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        if (sizes[i] < 0 || __builtin_mul_overflow(elements, sizes[i], &elements) || elements > int64_t{1} << 48) {
            throw std::invalid_argument(op + ": the sizes of a tensor are impossible");
        }
        result.sizes[i] = sizes[i];
        result.strides[i] = strides[i];
    }
    return result;
}

void add(Program& program, const std::string& op, const std::vector<Described>& tensors,
         const std::vector<int64_t>& ints, const std::vector<double>& floats) {
    std::vector<plan::Operand> operands;
    for (const Described& tensor : tensors) operands.push_back(operand(op, tensor));
    program.add(op, operands, ints, floats);
}

void run(Program& program, int threads) {
    const nb::gil_scoped_release release;
    program.run(threads);
}

std::vector<std::pair<std::string, int64_t>> profile(Program& program, int threads) {
    const nb::gil_scoped_release release;
    return program.profile(threads);
}

}  // namespace

void bind_plan(nb::module_& m) {
    nb::class_<Program>(m, "Program", "Instructions on tensors that stay where they are, computed without Python.")
        .def(nb::init<>())
        .def("__len__", &Program::size)
        .def("add", &add, nb::arg("op"), nb::arg("tensors"), nb::arg("ints"), nb::arg("floats"),
             "Append an instruction.\n\n"
             "Each tensor is its address (0: absent), its dtype (0 float32, 1 bfloat16, 2 float16, 3 int64, 4 int32,\n"
             "5 uint8, 6 bool), its sizes and its strides; outputs are first. ValueError: it is not supported.")
        .def("run", &run, nb::arg("threads"), "Compute all instructions. RuntimeError: an index was outside.")
        .def("profile", &profile, nb::arg("threads"),
             "Compute all instructions; return the name of each and the nanoseconds it took.");
}

}  // namespace torchgguf
