// Instructions that take steps of recurrences: csrc/recurrence computes them.
#include <algorithm>
#include <initializer_list>

#include "isa/registry.h"
#include "plan/build/families.h"
#include "recurrence/problems.h"

namespace torchgguf::plan {
namespace {

constexpr int64_t kMaxChunks = 64;

template <class Problem>
class Tasks : public Stage {
public:
    Tasks(Builder& builder, const TaskKernel<Problem>& kernel, const Problem& problem)
        : kernel_(kernel),
          problem_(problem),
          tasks_(kernel.tasks(problem)),
          per_chunk_((tasks_ + kMaxChunks - 1) / kMaxChunks),
          workspace_bytes_((kernel.workspace(problem) * int64_t{sizeof(float)} + 63) / 64 * 64) {
        if (tasks_ > 0) scratch_ = builder.scratch(chunks() * workspace_bytes_);
    }

    int64_t begin(Run&) override { return tasks_ > 0 ? chunks() : 0; }

    void compute(int64_t chunk, Run& run) override {
        auto* workspace = reinterpret_cast<float*>(run.scratch + scratch_ + chunk * workspace_bytes_);
        const int64_t last = std::min((chunk + 1) * per_chunk_, tasks_);
        for (int64_t task = chunk * per_chunk_; task < last; ++task) kernel_.compute(problem_, task, workspace);
    }

private:
    int64_t chunks() const { return (tasks_ + per_chunk_ - 1) / per_chunk_; }

    const TaskKernel<Problem> kernel_;
    const Problem problem_;
    const int64_t tasks_, per_chunk_, workspace_bytes_;
    int64_t scratch_ = 0;
};

template <class Problem>
void add_tasks(Builder& builder, const TaskKernel<Problem>& kernel, const Problem& problem) {
    builder.add(std::make_unique<Tasks<Problem>>(builder, kernel, problem));
}

// The numbers of a tensor of that shape.
float* checked(const Arguments& arguments, std::size_t i, std::initializer_list<int64_t> shape) {
    const Operand& tensor = arguments.tensor(i);
    const bool matches =
        tensor.ndim == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), tensor.sizes);
    arguments.require(matches, "the shapes do not match");
    arguments.require(tensor.dtype == DType::f32 && tensor.is_contiguous(), "the tensors must be contiguous float32");
    return reinterpret_cast<float*>(tensor.data);
}

const Operand& with_dimensions(const Arguments& arguments, std::size_t i, int count) {
    const Operand& tensor = arguments.tensor(i);
    arguments.require(tensor.ndim == count, "the shapes do not match");
    return tensor;
}

}  // namespace

// Tensors: out (B, C, T), x (B, C, K - 1 + T), weight (C, K), bias (C) or none.
void build_causal_convolution(const Arguments& arguments, Builder& builder) {
    const Operand &out = with_dimensions(arguments, 0, 3), &weight = with_dimensions(arguments, 2, 2);
    const int64_t B = out.sizes[0], C = weight.sizes[0], T = out.sizes[2], size = weight.sizes[1];
    arguments.require(size > 0, "the weight is empty");
    const CausalConvolution problem{.batch = B,
                                    .channels = C,
                                    .length = T,
                                    .size = size,
                                    .x = checked(arguments, 1, {B, C, T + size - 1}),
                                    .weight = checked(arguments, 2, {C, size}),
                                    .bias = arguments.optional(3) ? checked(arguments, 3, {C}) : nullptr,
                                    .out = checked(arguments, 0, {B, C, T})};
    add_tasks(builder, find_recurrences().causal_convolution, problem);
}

// Tensors: out, new_state, query, key, value, decay, beta, state: shapes are those of DeltaRule.
void build_gated_delta_rule(const Arguments& arguments, Builder& builder) {
    const Operand &key = with_dimensions(arguments, 3, 4), &value = with_dimensions(arguments, 4, 4);
    const int64_t B = value.sizes[0], T = value.sizes[1], H = value.sizes[2], V = value.sizes[3], K = key.sizes[2],
                  N = key.sizes[3];
    arguments.require(K > 0 && H % K == 0, "heads of values must be a multiple of those of keys");
    const bool channels = arguments.tensor(5).ndim == 4;
    const DeltaRule problem{
        .batch = B,
        .length = T,
        .key_heads = K,
        .heads = H,
        .n = N,
        .v = V,
        .channel_decay = channels,
        .corrected = true,
        .query = checked(arguments, 2, {B, T, K, N}),
        .key = checked(arguments, 3, {B, T, K, N}),
        .value = checked(arguments, 4, {B, T, H, V}),
        .decay = channels ? checked(arguments, 5, {B, T, H, N}) : checked(arguments, 5, {B, T, H}),
        .beta = checked(arguments, 6, {B, T, H}),
        .state = checked(arguments, 7, {B, H, N, V}),
        .out = checked(arguments, 0, {B, T, H, V}),
        .new_state = checked(arguments, 1, {B, H, N, V}),
    };
    add_tasks(builder, find_recurrences().delta_rule, problem);
}

// Tensors: out, new_state, x, step, a, b, c, state: shapes are those of SelectiveScan.
void build_selective_scan(const Arguments& arguments, Builder& builder) {
    const Operand &x = with_dimensions(arguments, 2, 3), &a = with_dimensions(arguments, 4, 2);
    const int64_t B = x.sizes[0], T = x.sizes[1], C = x.sizes[2], N = a.sizes[1];
    const SelectiveScan problem{.batch = B,
                                .length = T,
                                .channels = C,
                                .n = N,
                                .x = checked(arguments, 2, {B, T, C}),
                                .step = checked(arguments, 3, {B, T, C}),
                                .a = checked(arguments, 4, {C, N}),
                                .b = checked(arguments, 5, {B, T, N}),
                                .c = checked(arguments, 6, {B, T, N}),
                                .state = checked(arguments, 7, {B, C, N}),
                                .out = checked(arguments, 0, {B, T, C}),
                                .new_state = checked(arguments, 1, {B, C, N})};
    add_tasks(builder, find_recurrences().selective_scan, problem);
}

// Tensors: out, new_state, x, step, a, b, c, state: shapes are those of StateSpaceStep.
void build_state_space_scan(const Arguments& arguments, Builder& builder) {
    const Operand &x = with_dimensions(arguments, 2, 4), &b = with_dimensions(arguments, 5, 4);
    const int64_t B = x.sizes[0], T = x.sizes[1], H = x.sizes[2], V = x.sizes[3], G = b.sizes[2], N = b.sizes[3];
    arguments.require(G > 0 && H % G == 0, "heads must be a multiple of groups");
    const StateSpaceStep problem{.batch = B,
                                 .length = T,
                                 .groups = G,
                                 .heads = H,
                                 .n = N,
                                 .v = V,
                                 .x = checked(arguments, 2, {B, T, H, V}),
                                 .step = checked(arguments, 3, {B, T, H}),
                                 .a = checked(arguments, 4, {H}),
                                 .b = checked(arguments, 5, {B, T, G, N}),
                                 .c = checked(arguments, 6, {B, T, G, N}),
                                 .state = checked(arguments, 7, {B, H, V, N}),
                                 .out = checked(arguments, 0, {B, T, H, V}),
                                 .new_state = checked(arguments, 1, {B, H, V, N})};
    add_tasks(builder, find_recurrences().state_space_step, problem);
}

}  // namespace torchgguf::plan
