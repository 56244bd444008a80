// The recurrences, for Python. As in bind_kernels.cpp, every tensor is checked before a kernel sees a pointer.
#include <nanobind/stl/optional.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

#include "python/module.h"
#include "python/tensor.h"
#include "recurrence/run.h"

namespace nb = nanobind;

namespace torchgguf {
namespace {

using std::to_string;

void require_dimensions(const char* name, const Tensor& tensor, int count) {
    if (tensor.ndim() == count) return;
    throw std::invalid_argument(std::string(name) + " must have " + to_string(count) + " dimensions");
}

template <class T>
T* checked(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
    T* data = tensor.data<T>(name);
    require_dimensions(name, tensor, static_cast<int>(shape.size()));
    int i = 0;
    for (const int64_t size : shape) {
        if (tensor.size(i) != size) {
            throw std::invalid_argument("dimension " + to_string(i) + " of " + name + " must be " + to_string(size) +
                                        ", got " + to_string(tensor.size(i)));
        }
        ++i;
    }
    return data;
}

void require_multiple(const char* what, int64_t count, int64_t of) {
    if (of > 0 && count % of == 0) return;
    throw std::invalid_argument(std::string(what) + " must be a multiple of " + to_string(of) + ", got " +
                                to_string(count));
}

void bind_delta_rule(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& decay,
                     const Tensor& beta, const Tensor& state, const Tensor& out, const Tensor& new_state,
                     bool corrected, int threads) {
    require_dimensions("key", key, 4);
    require_dimensions("value", value, 4);
    const int64_t B = value.size(0), T = value.size(1), H = value.size(2), V = value.size(3), K = key.size(2),
                  N = key.size(3);
    require_multiple("heads of value", H, K);
    const bool channels = decay.ndim() == 4;
    const DeltaRule problem{
        .batch = B,
        .length = T,
        .key_heads = K,
        .heads = H,
        .n = N,
        .v = V,
        .channel_decay = channels,
        .corrected = corrected,
        .query = checked<const float>("query", query, {B, T, K, N}),
        .key = checked<const float>("key", key, {B, T, K, N}),
        .value = checked<const float>("value", value, {B, T, H, V}),
        .decay = channels ? checked<const float>("decay", decay, {B, T, H, N})
                          : checked<const float>("decay", decay, {B, T, H}),
        .beta = checked<const float>("beta", beta, {B, T, H}),
        .state = checked<const float>("state", state, {B, H, N, V}),
        .out = checked<float>("out", out, {B, T, H, V}),
        .new_state = checked<float>("new_state", new_state, {B, H, N, V}),
    };
    const nb::gil_scoped_release release;
    delta_rule(problem, threads);
}

void bind_state_space_step(const Tensor& x, const Tensor& step, const Tensor& a, const Tensor& b, const Tensor& c,
                           const Tensor& state, const Tensor& out, const Tensor& new_state, int threads) {
    require_dimensions("x", x, 4);
    require_dimensions("b", b, 4);
    const int64_t B = x.size(0), T = x.size(1), H = x.size(2), V = x.size(3), G = b.size(2), N = b.size(3);
    require_multiple("heads of x", H, G);
    const StateSpaceStep problem{
        .batch = B,
        .length = T,
        .groups = G,
        .heads = H,
        .n = N,
        .v = V,
        .x = checked<const float>("x", x, {B, T, H, V}),
        .step = checked<const float>("step", step, {B, T, H}),
        .a = checked<const float>("a", a, {H}),
        .b = checked<const float>("b", b, {B, T, G, N}),
        .c = checked<const float>("c", c, {B, T, G, N}),
        .state = checked<const float>("state", state, {B, H, V, N}),
        .out = checked<float>("out", out, {B, T, H, V}),
        .new_state = checked<float>("new_state", new_state, {B, H, V, N}),
    };
    const nb::gil_scoped_release release;
    state_space_step(problem, threads);
}

void bind_selective_scan(const Tensor& x, const Tensor& step, const Tensor& a, const Tensor& b, const Tensor& c,
                         const Tensor& state, const Tensor& out, const Tensor& new_state, int threads) {
    require_dimensions("x", x, 3);
    require_dimensions("a", a, 2);
    const int64_t B = x.size(0), T = x.size(1), C = x.size(2), N = a.size(1);
    const SelectiveScan problem{
        .batch = B,
        .length = T,
        .channels = C,
        .n = N,
        .x = checked<const float>("x", x, {B, T, C}),
        .step = checked<const float>("step", step, {B, T, C}),
        .a = checked<const float>("a", a, {C, N}),
        .b = checked<const float>("b", b, {B, T, N}),
        .c = checked<const float>("c", c, {B, T, N}),
        .state = checked<const float>("state", state, {B, C, N}),
        .out = checked<float>("out", out, {B, T, C}),
        .new_state = checked<float>("new_state", new_state, {B, C, N}),
    };
    const nb::gil_scoped_release release;
    selective_scan(problem, threads);
}

void bind_causal_convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                             const Tensor& out, int threads) {
    require_dimensions("weight", weight, 2);
    require_dimensions("out", out, 3);
    const int64_t B = out.size(0), C = weight.size(0), T = out.size(2), size = weight.size(1);
    require_multiple("size of weight", size, 1);
    const CausalConvolution problem{
        .batch = B,
        .channels = C,
        .length = T,
        .size = size,
        .x = checked<const float>("x", x, {B, C, T + size - 1}),
        .weight = checked<const float>("weight", weight, {C, size}),
        .bias = bias ? checked<const float>("bias", *bias, {C}) : nullptr,
        .out = checked<float>("out", out, {B, C, T}),
    };
    const nb::gil_scoped_release release;
    causal_convolution(problem, threads);
}

}  // namespace

void bind_recurrences(nb::module_& m) {
    m.def("delta_rule", &bind_delta_rule, nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("decay"),
          nb::arg("beta"), nb::arg("state"), nb::arg("out"), nb::arg("new_state"), nb::arg("corrected"),
          nb::arg("threads"),
          "Read a text by S <- exp(decay) S; S <- S + beta k (v - k S); out = q S.\n\n"
          "Without corrected, k S is not subtracted. All are float32: query, key (B, T, K, N), value, out\n"
          "(B, T, H, V), decay (B, T, H) or (B, T, H, N), beta (B, T, H), state, new_state (B, H, N, V).");
    m.def("state_space_step", &bind_state_space_step, nb::arg("x"), nb::arg("step"), nb::arg("a"), nb::arg("b"),
          nb::arg("c"), nb::arg("state"), nb::arg("out"), nb::arg("new_state"), nb::arg("threads"),
          "Read few positions by S <- exp(step a) S + step x b; out = S c.\n\n"
          "All are float32: x, out (B, T, H, P), step (B, T, H), a (H), b, c (B, T, G, N), state, new_state\n"
          "(B, H, P, N).");
    m.def("selective_scan", &bind_selective_scan, nb::arg("x"), nb::arg("step"), nb::arg("a"), nb::arg("b"),
          nb::arg("c"), nb::arg("state"), nb::arg("out"), nb::arg("new_state"), nb::arg("threads"),
          "Read a text by s <- exp(step a) s + step x b; out = c s.\n\n"
          "All are float32: x, step, out (B, T, C), a (C, N), b, c (B, T, N), state, new_state (B, C, N).");
    m.def("causal_convolution", &bind_causal_convolution, nb::arg("x"), nb::arg("weight"), nb::arg("bias"),
          nb::arg("out"), nb::arg("threads"),
          "Compute out[t] = bias + the sum over k of weight[k] x[t + k], in each channel.\n\n"
          "All are float32: x (B, C, K - 1 + T), weight (C, K), bias (C) or None, out (B, C, T).");
}

}  // namespace torchgguf
