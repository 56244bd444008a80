// The kernels, for Python. Each function checks its tensors against each other and against the type's blocks before a
// kernel sees a pointer: a wrong argument is an exception, never a read or a write outside of a tensor.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "dequantize.h"
#include "formats/layouts.h"
#include "grids.h"
#include "isa/registry.h"
#include "linear.h"
#include "python/module.h"
#include "python/tensor.h"
#include "quantize.h"

namespace nb = nanobind;

namespace torchgguf {
namespace {

using std::to_string;

void require(bool holds, const std::string& problem) {
    if (!holds) throw std::invalid_argument(problem);
}

// The blocks of a type that a kernel reads or writes.
BlockSize block_of(int type) {
    const BlockSize block = type >= 0 && type < kTableSize ? kBlockSizes.by_id[type] : BlockSize{};
    require(block.weights > 0, "no native kernel reads ggml type " + to_string(type));
    require(!lacks_grid(type), "the grid of ggml type " + to_string(type) + " is missing: set_grid passes it on");
    return block;
}

// For a type that has blocks and no row in the tables of csrc/isa.
[[noreturn]] void lack_kernel(const char* function, int type) {
    throw std::runtime_error("this build has no native kernel to " + std::string(function) + " ggml type " +
                             to_string(type) + " on this CPU");
}

void require_size(const char* what, int64_t size, int64_t expected) {
    if (size == expected) return;
    throw std::invalid_argument(std::string(what) + " must be " + to_string(expected) + ", got " + to_string(size));
}

// The weights of a row of packed bytes.
int64_t row_length(const Tensor& packed, const char* name, BlockSize block) {
    const int64_t bytes = packed.columns(name);
    require(bytes % block.bytes == 0, "a row of " + std::string(name) + " must be blocks of " + to_string(block.bytes) +
                                          " bytes, got " + to_string(bytes) + " bytes");
    return bytes / block.bytes * block.weights;
}

// Where decoded rows go: FP32 or BF16.
struct Output {
    void* data;
    OutputKind kind;

    Output(const Tensor& out, int64_t rows, int64_t n)
        : data(out.is_bf16() ? static_cast<void*>(out.data<Bf16>("out")) : out.data<float>("out")),
          kind(out.is_bf16() ? OutputKind::bf16 : OutputKind::f32) {
        require_size("columns of out", out.columns("out"), n);
        require_size("rows of out", out.rows(), rows);
    }
};

void bind_set_grid(int type, const nb::bytes& grid) {
    require(set_grid(type, grid.data(), grid.size()),
            "ggml type " + to_string(type) + " has no such grid, or another one is set");
}

void bind_linear(int type, const Tensor& weight, const Tensor& x, const std::optional<Tensor>& bias, const Tensor& out,
                 int threads) {
    const BlockSize block = block_of(type);
    require(weight.ndim() == 2, "weight must have two dimensions");
    LinearProblem problem{.type = type,
                          .weight = weight.data<const uint8_t>("weight"),
                          .row_bytes = weight.columns("weight"),
                          .in_features = row_length(weight, "weight", block),
                          .out_features = weight.rows(),
                          .x = x.data<const float>("x"),
                          .rows = x.rows(),
                          .bias = nullptr,
                          .y = out.data<float>("out")};
    require_size("columns of x", x.columns("x"), problem.in_features);
    require_size("columns of out", out.columns("out"), problem.out_features);
    require_size("rows of out", out.rows(), problem.rows);
    if (bias) {
        problem.bias = bias->data<const float>("bias");
        require(bias->ndim() == 1, "bias must have one dimension");
        require_size("length of bias", bias->columns("bias"), problem.out_features);
    }
    const nb::gil_scoped_release release;
    if (!linear(problem, threads)) lack_kernel("multiply", type);
}

void bind_dequantize(int type, const Tensor& packed, const Tensor& out, int threads) {
    const auto* src = packed.data<const uint8_t>("packed");
    const int64_t n = row_length(packed, "packed", block_of(type)), rows = packed.rows();
    const Output to(out, rows, n);
    const nb::gil_scoped_release release;
    if (!dequantize_rows(type, src, to.data, rows, n, to.kind, threads)) lack_kernel("decode", type);
}

void bind_embedding(int type, const Tensor& table, const Tensor& indices, const Tensor& out, int threads) {
    const auto* src = table.data<const uint8_t>("table");
    const int64_t n = row_length(table, "table", block_of(type)), table_rows = table.rows();
    const auto* index = indices.data<const int64_t>("indices");
    const int64_t count = indices.ndim() ? indices.rows() * indices.columns("indices") : 1;
    const Output to(out, count, n);
    // A copy: other threads may change the tensor between this check and the last row.
    const std::vector<int64_t> chosen(index, index + count);
    const auto wrong = std::ranges::find_if(chosen, [&](int64_t i) { return i < 0 || i >= table_rows; });
    if (wrong != chosen.end()) {
        const std::string problem =
            "index " + to_string(*wrong) + " is outside the " + to_string(table_rows) + " embeddings";
        throw nb::index_error(problem.c_str());
    }
    const nb::gil_scoped_release release;
    if (!embedding_rows(type, src, chosen.data(), count, to.data, n, to.kind, threads)) lack_kernel("decode", type);
}

void bind_quantize(int type, const Tensor& weights, const std::optional<Tensor>& importance, const Tensor& out,
                   int threads) {
    const BlockSize block = block_of(type);
    require(block.weights > 1, "ggml type " + to_string(type) + " does not pack");
    const auto* src = weights.data<const float>("weights");
    auto* dst = out.data<uint8_t>("out");
    const int64_t rows = weights.rows(), n = row_length(out, "out", block);
    require_size("columns of weights", weights.columns("weights"), n);
    require_size("rows of out", out.rows(), rows);
    const float* columns = nullptr;
    if (importance) {
        columns = importance->data<const float>("importance");
        require(importance->ndim() == 1, "importance must have one dimension");
        require_size("length of importance", importance->columns("importance"), n);
    }
    const nb::gil_scoped_release release;
    if (!quantize_rows(type, src, columns, dst, rows, n, threads)) lack_kernel("encode", type);
}

}  // namespace

void bind_kernels(nb::module_& m) {
    m.def("set_grid", &bind_set_grid, nb::arg("type"), nb::arg("grid"),
          "Pass on the grid of an I-quant, signed bytes, before its first use.");
    m.def("linear", &bind_linear, nb::arg("type"), nb::arg("weight"), nb::arg("x"), nb::arg("bias"), nb::arg("out"),
          nb::arg("threads"),
          "Compute out = x W^T + bias.\n\n"
          "weight is uint8 (out_features, bytes), x float32 (..., in_features), bias float32 (out_features)\n"
          "or None, out float32 (..., out_features).");
    m.def("dequantize", &bind_dequantize, nb::arg("type"), nb::arg("packed"), nb::arg("out"), nb::arg("threads"),
          "Decode packed, uint8 (..., bytes), into out, float32 or bfloat16 (..., n).");
    m.def("embedding", &bind_embedding, nb::arg("type"), nb::arg("table"), nb::arg("indices"), nb::arg("out"),
          nb::arg("threads"),
          "Decode the rows that indices, int64 (...), names of table, uint8 (rows, bytes).\n\n"
          "out is float32 or bfloat16 (..., n).");
    m.def("quantize", &bind_quantize, nb::arg("type"), nb::arg("weights"), nb::arg("importance"), nb::arg("out"),
          nb::arg("threads"),
          "Pack weights, float32 (..., n) and finite, into out, uint8 (..., bytes).\n\n"
          "importance, float32 (n) and above zero, or None, weighs the errors of each column.");
}

}  // namespace torchgguf
