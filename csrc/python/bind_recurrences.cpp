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

// Checks inputs; what is computed is not set.
DeltaRule delta_problem(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& decay,
                        const Tensor& beta, const Tensor& state, bool corrected) {
    require_dimensions("key", key, 4);
    require_dimensions("value", value, 4);
    const int64_t B = value.size(0), T = value.size(1), H = value.size(2), V = value.size(3), K = key.size(2),
                  N = key.size(3);
    require_multiple("heads of value", H, K);
    const bool channels = decay.ndim() == 4;
    return {
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
        .out = nullptr,
        .new_state = nullptr,
    };
}

void bind_delta_rule(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& decay,
                     const Tensor& beta, const Tensor& state, const Tensor& out, const Tensor& new_state,
                     bool corrected, int threads) {
    DeltaRule p = delta_problem(query, key, value, decay, beta, state, corrected);
    p.out = checked<float>("out", out, {p.batch, p.length, p.heads, p.v});
    p.new_state = checked<float>("new_state", new_state, {p.batch, p.heads, p.n, p.v});
    const nb::gil_scoped_release release;
    delta_rule(p, threads);
}

void bind_delta_rule_backward(const Tensor& grad_out, const Tensor& grad_state, const Tensor& query, const Tensor& key,
                              const Tensor& value, const Tensor& decay, const Tensor& beta, const Tensor& state,
                              const Tensor& by_query, const Tensor& by_key, const Tensor& by_value,
                              const Tensor& by_decay, const Tensor& by_beta, const Tensor& by_state, bool corrected,
                              int threads) {
    const DeltaRule p = delta_problem(query, key, value, decay, beta, state, corrected);
    const int64_t B = p.batch, T = p.length, H = p.heads, K = p.key_heads, N = p.n, V = p.v;
    require_dimensions("by_query", by_query, 5);
    const int64_t slices = by_query.size(3);
    require_multiple("heads of value", H, K * slices);
    const DeltaRuleBackward problem{
        .forward = p,
        .slices = slices,
        .grad_out = checked<const float>("grad_out", grad_out, {B, T, H, V}),
        .grad_state = checked<const float>("grad_state", grad_state, {B, H, N, V}),
        .query = checked<float>("by_query", by_query, {B, T, K, slices, N}),
        .key = checked<float>("by_key", by_key, {B, T, K, slices, N}),
        .value = checked<float>("by_value", by_value, {B, T, H, V}),
        .decay = p.channel_decay ? checked<float>("by_decay", by_decay, {B, T, H, N})
                                 : checked<float>("by_decay", by_decay, {B, T, H}),
        .beta = checked<float>("by_beta", by_beta, {B, T, H}),
        .state = checked<float>("by_state", by_state, {B, H, N, V}),
    };
    const nb::gil_scoped_release release;
    delta_rule_backward(problem, threads);
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

SelectiveScan selective_problem(const Tensor& x, const Tensor& step, const Tensor& a, const Tensor& b, const Tensor& c,
                                const Tensor& state) {
    require_dimensions("x", x, 3);
    require_dimensions("a", a, 2);
    const int64_t B = x.size(0), T = x.size(1), C = x.size(2), N = a.size(1);
    return {
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
        .out = nullptr,
        .new_state = nullptr,
    };
}

void bind_selective_scan(const Tensor& x, const Tensor& step, const Tensor& a, const Tensor& b, const Tensor& c,
                         const Tensor& state, const Tensor& out, const Tensor& new_state, int threads) {
    SelectiveScan p = selective_problem(x, step, a, b, c, state);
    p.out = checked<float>("out", out, {p.batch, p.length, p.channels});
    p.new_state = checked<float>("new_state", new_state, {p.batch, p.channels, p.n});
    const nb::gil_scoped_release release;
    selective_scan(p, threads);
}

void bind_selective_scan_backward(const Tensor& grad_out, const Tensor& grad_state, const Tensor& x, const Tensor& step,
                                  const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& state,
                                  const Tensor& by_x, const Tensor& by_step, const Tensor& by_a, const Tensor& by_b,
                                  const Tensor& by_c, const Tensor& by_state, int threads) {
    const SelectiveScan p = selective_problem(x, step, a, b, c, state);
    const int64_t B = p.batch, T = p.length, C = p.channels, N = p.n;
    require_dimensions("by_b", by_b, 4);
    const int64_t slices = by_b.size(1);
    if (slices < 1) throw std::invalid_argument("dimension 1 of by_b must be positive");
    const SelectiveScanBackward problem{
        .forward = p,
        .slices = slices,
        .grad_out = checked<const float>("grad_out", grad_out, {B, T, C}),
        .grad_state = checked<const float>("grad_state", grad_state, {B, C, N}),
        .x = checked<float>("by_x", by_x, {B, T, C}),
        .step = checked<float>("by_step", by_step, {B, T, C}),
        .a = checked<float>("by_a", by_a, {B, C, N}),
        .b = checked<float>("by_b", by_b, {B, slices, T, N}),
        .c = checked<float>("by_c", by_c, {B, slices, T, N}),
        .state = checked<float>("by_state", by_state, {B, C, N}),
    };
    const nb::gil_scoped_release release;
    selective_scan_backward(problem, threads);
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
    m.def("delta_rule_backward", &bind_delta_rule_backward, nb::arg("grad_out"), nb::arg("grad_state"),
          nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("decay"), nb::arg("beta"), nb::arg("state"),
          nb::arg("by_query"), nb::arg("by_key"), nb::arg("by_value"), nb::arg("by_decay"), nb::arg("by_beta"),
          nb::arg("by_state"), nb::arg("corrected"), nb::arg("threads"),
          "Compute the gradients of delta_rule from those of its outputs.\n\n"
          "by_query and by_key, (B, T, K, slices, N), are sums over slices of the heads that share keys; the others\n"
          "have the shapes of what they are the gradients of.");
    m.def("state_space_step", &bind_state_space_step, nb::arg("x"), nb::arg("step"), nb::arg("a"), nb::arg("b"),
          nb::arg("c"), nb::arg("state"), nb::arg("out"), nb::arg("new_state"), nb::arg("threads"),
          "Read few positions by S <- exp(step a) S + step x b; out = S c.\n\n"
          "All are float32: x, out (B, T, H, P), step (B, T, H), a (H), b, c (B, T, G, N), state, new_state\n"
          "(B, H, P, N).");
    m.def("selective_scan", &bind_selective_scan, nb::arg("x"), nb::arg("step"), nb::arg("a"), nb::arg("b"),
          nb::arg("c"), nb::arg("state"), nb::arg("out"), nb::arg("new_state"), nb::arg("threads"),
          "Read a text by s <- exp(step a) s + step x b; out = c s.\n\n"
          "All are float32: x, step, out (B, T, C), a (C, N), b, c (B, T, N), state, new_state (B, C, N).");
    m.def("selective_scan_backward", &bind_selective_scan_backward, nb::arg("grad_out"), nb::arg("grad_state"),
          nb::arg("x"), nb::arg("step"), nb::arg("a"), nb::arg("b"), nb::arg("c"), nb::arg("state"), nb::arg("by_x"),
          nb::arg("by_step"), nb::arg("by_a"), nb::arg("by_b"), nb::arg("by_c"), nb::arg("by_state"),
          nb::arg("threads"),
          "Compute the gradients of selective_scan from those of its outputs.\n\n"
          "by_a, (B, C, N), is of each text; by_b and by_c, (B, slices, T, N), are sums over slices of channels; the\n"
          "others have the shapes of what they are the gradients of.");
    m.def("causal_convolution", &bind_causal_convolution, nb::arg("x"), nb::arg("weight"), nb::arg("bias"),
          nb::arg("out"), nb::arg("threads"),
          "Compute out[t] = bias + the sum over k of weight[k] x[t + k], in each channel.\n\n"
          "All are float32: x (B, C, K - 1 + T), weight (C, K), bias (C) or None, out (B, C, T).");
}

}  // namespace torchgguf
