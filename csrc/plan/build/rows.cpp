// Instructions whose rows are computed as a whole: reductions, softmax, normalizations.
#include <algorithm>

#include "plan/build/families.h"

namespace torchgguf::plan {
namespace {

constexpr int64_t kElementsPerChunk = 1 << 14;

int64_t rows_per_chunk(int64_t elements) {
    return std::max<int64_t>(1, kElementsPerChunk / std::max<int64_t>(elements, 1));
}

// Rows are split over threads; each of these has a row of floats of the scratch memory.
template <class Problem>
class Rows : public Stage {
public:
    using Compute = void (*)(const Problem& problem, int64_t first, int64_t last, float* row);

    Rows(Compute compute, const Problem& problem, int64_t rows, int64_t elements, Builder& builder)
        : compute_(compute),
          problem_(problem),
          rows_(rows),
          per_chunk_(rows_per_chunk(elements)),
          row_bytes_((elements * int64_t{sizeof(float)} + 63) / 64 * 64) {
        scratch_ = builder.scratch(chunks() * row_bytes_);
    }

    int64_t begin(Run&) override { return chunks(); }

    void compute(int64_t chunk, Run& run) override {
        auto* row = reinterpret_cast<float*>(run.scratch + scratch_ + chunk * row_bytes_);
        compute_(problem_, chunk * per_chunk_, std::min((chunk + 1) * per_chunk_, rows_), row);
    }

private:
    int64_t chunks() const { return (rows_ + per_chunk_ - 1) / per_chunk_; }

    const Compute compute_;
    const Problem problem_;
    const int64_t rows_, per_chunk_, row_bytes_;
    int64_t scratch_;
};

struct NamedReduction {
    std::string_view name;
    Reduction reduction;
};

constexpr NamedReduction kReductions[] = {
    {"sum", Reduction::sum},   {"mean", Reduction::mean}, {"max", Reduction::max}, {"min", Reduction::min},
    {"prod", Reduction::prod}, {"any", Reduction::any},   {"all", Reduction::all},
};

class ReduceStage : public Stage {
public:
    ReduceStage(const Kernels& kernels, const Reduce& problem)
        : kernels_(kernels),
          problem_(problem),
          rows_(problem.kept.outer() * problem.kept.inner()),
          per_chunk_(rows_per_chunk(problem.reduced.outer() * problem.reduced.inner())) {}

    int64_t begin(Run&) override { return (rows_ + per_chunk_ - 1) / per_chunk_; }
    void compute(int64_t chunk, Run&) override {
        kernels_.reduce(problem_, chunk * per_chunk_, std::min((chunk + 1) * per_chunk_, rows_));
    }

private:
    const Kernels& kernels_;
    const Reduce problem_;
    const int64_t rows_, per_chunk_;
};

// A tensor's dimensions of which `chosen` is true or false, as one of its own.
Operand with_dimensions(const Operand& tensor, const bool* chosen, bool value) {
    Operand result = tensor;
    result.ndim = 0;
    for (int i = 0; i < tensor.ndim; ++i) {
        if (chosen[i] != value) continue;
        result.sizes[result.ndim] = tensor.sizes[i];
        result.strides[result.ndim++] = tensor.strides[i];
    }
    return result;
}

std::span<const int64_t> shape_of(const Operand& tensor) {
    return {tensor.sizes, static_cast<std::size_t>(tensor.ndim)};
}

void build_softmax_of(const Arguments& arguments, Builder& builder, bool logarithm) {
    Operand out = arguments.tensor(0), in = arguments.tensor(1);
    arguments.require(is_float(out.dtype) && is_float(in.dtype), "the tensors must be of floats");
    arguments.require(in.ndim == out.ndim && in.ndim > 0, "the tensors must have the same shape");
    const int dim = arguments.dimension(0, out.ndim);
    for (int i = 0; i < out.ndim; ++i) arguments.require(in.sizes[i] == out.sizes[i], "the shapes do not match");
    if (out.numel() == 0) return;
    for (Operand* tensor : {&out, &in}) {  // the dimension becomes the last
        std::rotate(tensor->sizes + dim, tensor->sizes + dim + 1, tensor->sizes + tensor->ndim);
        std::rotate(tensor->strides + dim, tensor->strides + dim + 1, tensor->strides + tensor->ndim);
    }
    const Operand* tensors[] = {&out, &in};
    const LoopNest nest(arguments, shape_of(out), tensors, 1);
    const Softmax problem{logarithm, nest.loops, nest.streams[0], nest.streams[1]};
    builder.add(std::make_unique<Rows<Softmax>>(builder.kernels.softmax, problem, nest.loops.outer(),
                                                nest.loops.inner(), builder));
}

// Tensors: out, x, weight or none, bias or none; or, if there is something to add: out, sum, x, added, weight, bias.
void build_normalization(const Arguments& arguments, Builder& builder, bool centered) {
    const bool adds = arguments.variant == "add";
    arguments.require(adds || arguments.variant.empty(), "there is no such variant");
    const Operand absent{}, &out = arguments.tensor(0);
    const Operand &sum = adds ? arguments.tensor(1) : absent, &x = arguments.tensor(adds ? 2 : 1),
                  &added = adds ? arguments.tensor(3) : absent;
    const Operand weight = arguments.optional(adds ? 4 : 2), bias = arguments.optional(adds ? 5 : 3);
    const Operand* tensors[] = {&out, &x, &weight, &bias, &added, &sum};
    arguments.require(out.ndim > 0, "the result must have dimensions");
    for (const Operand* tensor : tensors) {
        if (!*tensor) continue;
        arguments.require(is_float(tensor->dtype), "the tensors must be of floats");
        arguments.require(tensor->ndim > 0 && tensor->size(-1) == out.size(-1), "the last dimensions do not match");
    }
    arguments.require((!weight || weight.ndim == 1) && (!bias || bias.ndim == 1), "weights must have one dimension");
    arguments.require(!sum || sum.numel() == out.numel(), "the shapes do not match");
    if (out.numel() == 0) return;
    const LoopNest nest(arguments, shape_of(out), tensors, 1);
    const auto& s = nest.streams;
    const Normalization problem{.centered = centered,
                                .eps = static_cast<float>(arguments.number(0)),
                                .loops = nest.loops,
                                .out = s[0],
                                .x = s[1],
                                .weight = s[2],
                                .bias = s[3],
                                .added = s[4],
                                .sum = s[5]};
    builder.add(std::make_unique<Rows<Normalization>>(builder.kernels.normalize, problem, nest.loops.outer(),
                                                      nest.loops.inner(), builder));
}

}  // namespace

void build_reduce(const Arguments& arguments, Builder& builder) {
    const auto row = std::ranges::find(kReductions, arguments.variant, &NamedReduction::name);
    if (row == std::end(kReductions)) arguments.refuse("there is no such reduction");
    const Operand &out = arguments.tensor(0), &in = arguments.tensor(1);
    bool reduced[kMaxDims] = {};
    for (std::size_t i = 0; i < arguments.ints.size(); ++i) reduced[arguments.dimension(i, in.ndim)] = true;
    if (arguments.ints.empty()) std::fill_n(reduced, in.ndim, true);
    const Operand kept = with_dimensions(in, reduced, false), over = with_dimensions(in, reduced, true);
    Operand to = out;
    if (out.ndim == in.ndim) to = with_dimensions(out, reduced, false);
    arguments.require(to.ndim == kept.ndim && to.numel() == out.numel(), "the shapes do not match");
    for (int i = 0; i < kept.ndim; ++i) arguments.require(to.sizes[i] == kept.sizes[i], "the shapes do not match");
    const bool extreme = row->reduction == Reduction::max || row->reduction == Reduction::min;
    arguments.require(over.numel() > 0 || !extreme, "there is nothing to reduce");
    const bool integers = !is_float(in.dtype);
    arguments.require(!integers || row->reduction != Reduction::mean, "the mean of integers is not defined");
    if (out.numel() == 0) return;
    const Operand *outer[] = {&to, &kept}, *inner[] = {&over};
    const LoopNest kept_nest(arguments, shape_of(kept), outer), reduced_nest(arguments, shape_of(over), inner);
    const Reduce problem{.reduction = row->reduction,
                         .integers = integers,
                         .kept = kept_nest.loops,
                         .reduced = reduced_nest.loops,
                         .out = kept_nest.streams[0],
                         .in = kept_nest.streams[1],
                         .in_reduced = reduced_nest.streams[0]};
    builder.add(std::make_unique<ReduceStage>(builder.kernels, problem));
}

// Tensors: out, x, cos, sin, whose last dimension is the rotated part of x's; an integer: neighbours are pairs.
void build_rope(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &x = arguments.tensor(1);
    Operand cos = arguments.tensor(2), sin = arguments.tensor(3);
    const Operand* tensors[] = {&out, &x, &cos, &sin};
    for (const Operand* tensor : tensors) {
        arguments.require(tensor->ndim > 0 && is_float(tensor->dtype), "the tensors must be of floats");
    }
    const int64_t rotated = cos.size(-1), size = out.size(-1);
    arguments.require(x.size(-1) == size && sin.size(-1) == rotated && rotated <= size && rotated % 2 == 0 &&
                          rotated > 0 && size <= kMaxHeadSize,
                      "the sizes of the last dimension do not match");
    // In the loops, cosines and sines are as long as the whole dimension; no more than the rotated part is read.
    const int64_t steps[] = {cos.stride(-1), sin.stride(-1)};
    cos.sizes[cos.ndim - 1] = sin.sizes[sin.ndim - 1] = size;
    if (out.numel() == 0) return;
    const LoopNest nest(arguments, shape_of(out), tensors, 1);
    Rope problem{.neighbours = arguments.integer(0, 0) != 0,
                 .rotated = rotated,
                 .loops = nest.loops,
                 .out = nest.streams[0],
                 .x = nest.streams[1],
                 .cos = nest.streams[2],
                 .sin = nest.streams[3]};
    problem.cos.strides[nest.loops.count - 1] = steps[0];
    problem.sin.strides[nest.loops.count - 1] = steps[1];
    builder.add(std::make_unique<Rows<Rope>>(builder.kernels.rope, problem, nest.loops.outer(), size, builder));
}

void build_softmax(const Arguments& arguments, Builder& builder) { build_softmax_of(arguments, builder, false); }
void build_log_softmax(const Arguments& arguments, Builder& builder) { build_softmax_of(arguments, builder, true); }
void build_rms_norm(const Arguments& arguments, Builder& builder) { build_normalization(arguments, builder, false); }
void build_layer_norm(const Arguments& arguments, Builder& builder) { build_normalization(arguments, builder, true); }

}  // namespace torchgguf::plan
