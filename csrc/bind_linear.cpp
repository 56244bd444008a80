#include "linear.h"
#include "module.h"

namespace nb = nanobind;

namespace torchgguf {

void bind_linear(nb::module_& m) {
    m.def(
        "linear",
        [](int type, uintptr_t weight, int64_t row_bytes, int64_t in_features, int64_t out_features, uintptr_t x,
           int64_t rows, uintptr_t bias, uintptr_t y, int threads) {
            check(linear({.type = type,
                          .weight = pointer<const uint8_t>(weight),
                          .row_bytes = row_bytes,
                          .in_features = in_features,
                          .out_features = out_features,
                          .x = pointer<const float>(x),
                          .rows = rows,
                          .bias = pointer<const float>(bias),
                          .y = pointer<float>(y)},
                         threads),
                  type);
        },
        nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace torchgguf
