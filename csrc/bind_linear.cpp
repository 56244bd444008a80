#include "linear.h"
#include "module.h"

namespace nb = nanobind;

namespace torchgguf {

void bind_linear(nb::module_& m) {
    m.def(
        "linear",
        [](int type, uintptr_t weight, int64_t row_bytes, int64_t in_features, int64_t out_features, uintptr_t x,
           int64_t rows, uintptr_t bias, uintptr_t y, int threads) {
            return linear({.type = type,
                           .weight = reinterpret_cast<const uint8_t*>(weight),
                           .row_bytes = row_bytes,
                           .in_features = in_features,
                           .out_features = out_features,
                           .x = reinterpret_cast<const float*>(x),
                           .rows = rows,
                           .bias = reinterpret_cast<const float*>(bias),
                           .y = reinterpret_cast<float*>(y)},
                          threads);
        },
        nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace torchgguf
