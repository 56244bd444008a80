// Decoding and encoding, for Python: pointers are integers, sizes are in elements. The caller checks shapes and indices.
#include <cstdint>
#include <stdexcept>
#include <string>

#include "dequantize.h"
#include "module.h"
#include "quantize.h"

namespace nb = nanobind;

namespace torchgguf {

void check(bool decoded, int type) {
    if (decoded) return;
    const char* problem = block_layout(type).block_size ? "no grid was handed over for ggml type "
                                                        : "no native decoder for ggml type ";
    throw std::invalid_argument(problem + std::to_string(type));
}

void bind_quants(nb::module_& m) {
    m.def("block_layout", [](int type) {
        const BlockLayout layout = block_layout(type);
        return nb::make_tuple(layout.block_size, layout.type_size);
    }, nb::arg("type"));
    m.def("set_grid", [](int type, const nb::bytes& grid) {
        if (!set_grid(type, grid.data(), grid.size()))
            throw std::invalid_argument("ggml type " + std::to_string(type) + " has no grid of this size");
    }, nb::arg("type"), nb::arg("grid"));
    m.def("dequantize_rows",
          [](int type, uintptr_t src, uintptr_t dst, int64_t rows, int64_t n, int kind, int threads) {
              check(dequantize_rows(type, pointer<const uint8_t>(src), pointer<void>(dst), rows, n,
                                    static_cast<OutputKind>(kind), threads), type);
          },
          nb::arg("type"), nb::arg("src"), nb::arg("dst"), nb::arg("rows"), nb::arg("n"), nb::arg("kind"),
          nb::arg("threads"), nb::call_guard<nb::gil_scoped_release>());
    m.def("quantize_rows",
          [](int type, uintptr_t src, uintptr_t importance, uintptr_t dst, int64_t rows, int64_t n,
             int threads) {
              return quantize_rows(type, pointer<const float>(src), pointer<const float>(importance),
                                   pointer<uint8_t>(dst), rows, n, threads);
          },
          nb::arg("type"), nb::arg("src"), nb::arg("importance"), nb::arg("dst"), nb::arg("rows"),
          nb::arg("n"), nb::arg("threads"), nb::call_guard<nb::gil_scoped_release>());
    m.def("embedding_rows",
          [](int type, uintptr_t src, uintptr_t indices, int64_t count, uintptr_t dst, int64_t n, int kind,
             int threads) {
              check(embedding_rows(type, pointer<const uint8_t>(src), pointer<const int64_t>(indices), count,
                                   pointer<void>(dst), n, static_cast<OutputKind>(kind), threads), type);
          },
          nb::arg("type"), nb::arg("src"), nb::arg("indices"), nb::arg("count"), nb::arg("dst"), nb::arg("n"),
          nb::arg("kind"), nb::arg("threads"), nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace torchgguf
