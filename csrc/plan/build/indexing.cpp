// Instructions that read or write where other tensors say. Each index is checked when the program runs.
#include <algorithm>
#include <cstring>

#include "formats/layouts.h"
#include "grids.h"
#include "isa/registry.h"
#include "plan/build/families.h"
#include "plan/build/pointwise_stage.h"

namespace torchgguf::plan {
namespace {

constexpr const char* kOutside = "a plan read an index that is outside of its tensor";

// Indices of any integer dtype, in the order of their tensor.
class Indices {
public:
    Indices(const Arguments& arguments, const Operand& tensor) : tensor_(tensor), count(tensor.numel()) {
        arguments.require(tensor.dtype == DType::i64 || tensor.dtype == DType::i32, "indices must be int64 or int32");
    }

private:
    const Operand tensor_;

public:
    // The index at place `i`, or -1, and a failure, if it is not in [0, size).
    int64_t at(int64_t i, int64_t size, Run& run) const {
        int64_t offset = 0;
        for (int d = tensor_.ndim - 1; d >= 0; --d) {
            offset += i % tensor_.sizes[d] * tensor_.strides[d];
            i /= tensor_.sizes[d];
        }
        const int64_t index = tensor_.dtype == DType::i64 ? reinterpret_cast<const int64_t*>(tensor_.data)[offset]
                                                          : reinterpret_cast<const int32_t*>(tensor_.data)[offset];
        if (index >= 0 && index < size) return index;
        run.fail(kOutside);
        return -1;
    }

    const int64_t count;
};

// Rows of a table, packed or plain.
class Embedding : public Stage {
public:
    Embedding(const Arguments& arguments, Builder& builder, const Operand& out, const Operand& indices,
              const Operand& weight, int type)
        : kernels_(builder.kernels),
          out_(out),
          weight_(weight),
          indices_(arguments, indices),
          decode_(find_decoder_to_f32(type)),
          n_(out.size(-1)),
          row_bytes_(weight.sizes[1] * item_size(weight.dtype)),
          scratch_(builder.scratch(n_ * int64_t{sizeof(float)})) {}

    void compute(int64_t, Run& run) override {
        const bool direct = out_.dtype == DType::f32;
        for (int64_t i = 0; i < indices_.count; ++i) {
            const int64_t row = indices_.at(i, weight_.sizes[0], run);
            if (row < 0) continue;
            auto* to = reinterpret_cast<float*>(direct ? out_.data : run.scratch + scratch_) + (direct ? i * n_ : 0);
            decode_(weight_.data + row * row_bytes_, to, n_);
            if (!direct) kernels_.store_floats(to, {out_.data, out_.dtype, {}}, i * n_, 1, n_);
        }
    }

private:
    const Kernels& kernels_;
    const Operand out_, weight_;
    const Indices indices_;
    const decltype(Decoder::to_f32) decode_;
    const int64_t n_, row_bytes_;
    const int64_t scratch_;
};

// Slices of a dimension, chosen by an index: each is one step of a loop over everything else.
class Slices : public Stage {
public:
    Slices(const Kernels& kernels, const Pointwise& slice, const Indices& indices, int64_t size, bool writes,
           int64_t chosen_step, int64_t other_step)
        : kernels_(kernels),
          slice_(slice),
          indices_(indices),
          size_(size),
          writes_(writes),
          chosen_step_(chosen_step),
          other_step_(other_step) {}

    void compute(int64_t, Run& run) override {
        const int64_t runs = slice_.loops.outer() * ((slice_.loops.inner() + kRun - 1) / kRun);
        for (int64_t i = 0; i < indices_.count; ++i) {
            const int64_t index = indices_.at(i, size_, run);
            if (index < 0) continue;
            Pointwise slice = slice_;
            (writes_ ? slice.out : slice.in[0]).data += index * chosen_step_;
            (writes_ ? slice.in[0] : slice.out).data += i * other_step_;
            kernels_.pointwise(slice, 0, runs);
        }
    }

private:
    const Kernels& kernels_;
    const Pointwise slice_;
    const Indices indices_;
    const int64_t size_;
    const bool writes_;
    const int64_t chosen_step_, other_step_;  // in bytes
};

// `chosen` is the tensor that indices point into.
void add_slices(const Arguments& arguments, Builder& builder, const Operand& chosen, const Operand& other,
                const Operand& index, int dim, bool writes) {
    arguments.require(index.ndim <= 1, "the index must have one dimension");
    const Indices indices(arguments, index);
    arguments.require(chosen.ndim == other.ndim && other.sizes[dim] == indices.count, "the shapes do not match");
    arguments.require(chosen.dtype == other.dtype, "the dtypes do not match");
    for (int i = 0; i < other.ndim; ++i) {
        arguments.require(i == dim || chosen.sizes[i] == other.sizes[i], "the shapes do not match");
    }
    if (other.numel() == 0) return;
    const Operand one_chosen = chosen.select(dim, 0), one_other = other.select(dim, 0);
    const Operand* tensors[] = {writes ? &one_chosen : &one_other, writes ? &one_other : &one_chosen};
    const LoopNest nest(arguments, {one_other.sizes, static_cast<std::size_t>(one_other.ndim)}, tensors);
    Pointwise slice{};
    slice.integers = !is_float(other.dtype);
    slice.loops = nest.loops;
    slice.out = nest.streams[0];
    slice.in[0] = nest.streams[1];
    builder.add(std::make_unique<Slices>(builder.kernels, slice, indices, chosen.sizes[dim], writes,
                                         chosen.strides[dim] * item_size(chosen.dtype),
                                         other.strides[dim] * item_size(other.dtype)));
}

// Single elements, whose place along a dimension is in a tensor of their shape.
class Elements : public Stage {
public:
    Elements(const Arguments& arguments, const Operand& chosen, const Operand& other, const Operand& index, int dim,
             bool writes)
        : chosen_(chosen), other_(other), index_(index), indices_(arguments, index), dim_(dim), writes_(writes) {}

    void compute(int64_t, Run& run) override {
        const int64_t bytes = item_size(chosen_.dtype);
        for (int64_t i = 0; i < indices_.count; ++i) {
            const int64_t index = indices_.at(i, chosen_.sizes[dim_], run);
            if (index < 0) continue;
            int64_t left = i, chosen = index * chosen_.strides[dim_], other = 0;
            for (int d = index_.ndim - 1; d >= 0; --d) {
                const int64_t at = left % index_.sizes[d];
                left /= index_.sizes[d];
                other += at * other_.strides[d];
                if (d != dim_) chosen += at * chosen_.strides[d];
            }
            uint8_t *a = chosen_.data + chosen * bytes, *b = other_.data + other * bytes;
            std::memcpy(writes_ ? a : b, writes_ ? b : a, static_cast<std::size_t>(bytes));
        }
    }

private:
    const Operand chosen_, other_, index_;
    const Indices indices_;
    const int dim_;
    const bool writes_;
};

void add_elements(const Arguments& arguments, Builder& builder, const Operand& chosen, const Operand& other,
                  const Operand& index, int dim, bool writes) {
    arguments.require(chosen.dtype == other.dtype, "the dtypes do not match");
    arguments.require(chosen.ndim == index.ndim && other.ndim == index.ndim, "the shapes do not match");
    for (int i = 0; i < index.ndim; ++i) {
        arguments.require(index.sizes[i] <= other.sizes[i] && (i == dim || index.sizes[i] <= chosen.sizes[i]),
                          "the shapes do not match");
    }
    builder.add(std::make_unique<Elements>(arguments, chosen, other, index, dim, writes));
}

// A number that elements are read from.
class Number : public Stage {
public:
    Number(const Kernels& kernels, DType dtype, double value) {
        const auto number = static_cast<float>(value);
        const auto integer = static_cast<int64_t>(value);
        if (dtype == DType::i64) {
            std::memcpy(bytes_, &integer, sizeof integer);
        } else {
            kernels.store_floats(&number, {bytes_, dtype, {}}, 0, 1, 1);
        }
    }
    uint8_t* bytes() { return bytes_; }
    void compute(int64_t, Run&) override {}
    int64_t begin(Run&) override { return 0; }

private:
    alignas(8) uint8_t bytes_[8] = {};
};

}  // namespace

void build_embedding(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &indices = arguments.tensor(1), &weight = arguments.tensor(2);
    const int64_t given = arguments.integer(0, -1);
    const bool plain = given == -1;
    arguments.require(plain || (given >= 0 && given < kTableSize), "there is no such type");
    arguments.require(weight.ndim == 2 && weight.is_contiguous(), "the weight must be a contiguous matrix");
    arguments.require(plain ? is_float(weight.dtype) : weight.dtype == DType::u8,
                      "the weight's dtype is not supported");
    const int type = !plain                       ? static_cast<int>(given)
                     : weight.dtype == DType::f32 ? F32::id
                     : weight.dtype == DType::f16 ? F16::id
                                                  : BF16::id;
    arguments.require(find_decoder_to_f32(type) && !lacks_grid(type), "no kernel decodes the type");
    const BlockSize block = kBlockSizes.by_id[type];
    const int64_t row_bytes = weight.sizes[1] * item_size(weight.dtype);
    arguments.require(row_bytes % block.bytes == 0, "the weight's rows are not whole blocks");
    arguments.require(is_float(out.dtype) && out.is_contiguous() && out.ndim > 0,
                      "the result must be contiguous floats");
    arguments.require(
        out.size(-1) == row_bytes / block.bytes * block.weights && out.numel() == indices.numel() * out.size(-1),
        "the shapes do not match");
    if (out.numel() == 0) return;
    builder.add(std::make_unique<Embedding>(arguments, builder, out, indices, weight, type));
}

void build_index_select(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &in = arguments.tensor(1), &index = arguments.tensor(2);
    add_slices(arguments, builder, in, out, index, arguments.dimension(0, in.ndim), false);
}

void build_index_copy(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &src = arguments.tensor(1), &index = arguments.tensor(2);
    add_slices(arguments, builder, out, src, index, arguments.dimension(0, out.ndim), true);
}

void build_gather(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &in = arguments.tensor(1), &index = arguments.tensor(2);
    add_elements(arguments, builder, in, out, index, arguments.dimension(0, in.ndim), false);
}

// Tensors: out, index, and what is written, or no third and a number.
void build_scatter(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &index = arguments.tensor(1);
    const int dim = arguments.dimension(0, out.ndim);
    Operand src = arguments.optional(2);
    if (!src) {
        auto number = std::make_unique<Number>(builder.kernels, out.dtype, arguments.number(0));
        src = index;
        src.dtype = out.dtype;
        src.data = number->bytes();
        std::fill_n(src.strides, kMaxDims, int64_t{0});
        builder.add(std::move(number));
    }
    add_elements(arguments, builder, out, src, index, dim, true);
}

}  // namespace torchgguf::plan
