// Instructions that compare or add up the elements of a row in order.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "plan/build/families.h"

namespace torchgguf::plan {
namespace {

// The rows of tensors along a dimension, which are equal in shape but for that one.
class RowsAlong {
public:
    RowsAlong(const Arguments& arguments, int dim, std::span<const Operand* const> tensors) : dim_(dim) {
        const Operand& first = *tensors[0];
        for (const Operand* tensor : tensors) {
            arguments.require(tensor->ndim == first.ndim, "the tensors must have as many dimensions");
            for (int i = 0; i < first.ndim; ++i) {
                arguments.require(i == dim || tensor->sizes[i] == first.sizes[i], "the shapes do not match");
            }
        }
        for (int i = 0; i < first.ndim; ++i) {
            if (i == dim) continue;
            sizes_[count_] = first.sizes[i];
            dims_[count_++] = i;
        }
        rows = std::accumulate(sizes_, sizes_ + count_, int64_t{1}, std::multiplies<>());
    }

    // Where a row of a tensor begins, in elements.
    int64_t offset(const Operand& tensor, int64_t row) const {
        int64_t result = 0;
        for (int i = count_ - 1; i >= 0; --i) {
            result += row % sizes_[i] * tensor.strides[dims_[i]];
            row /= sizes_[i];
        }
        return result;
    }
    int dim() const { return dim_; }

    int64_t rows = 1;

private:
    int dim_, count_ = 0;
    int64_t sizes_[kMaxDims] = {};
    int dims_[kMaxDims] = {};
};

Stream stream_of(const Operand& tensor) { return {tensor.data, tensor.dtype, {}}; }

int64_t* integer_at(const Operand& tensor, int64_t offset) { return reinterpret_cast<int64_t*>(tensor.data) + offset; }

// NaN is greater than any number, as in torch.
bool is_greater(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

class Cumsum : public Stage {
public:
    Cumsum(const Kernels& kernels, const RowsAlong& along, const Operand& out, const Operand& in)
        : kernels_(kernels), along_(along), out_(out), in_(in) {}

    void compute(int64_t, Run&) override {
        for (int64_t row = 0; row < along_.rows; ++row) {
            is_float(out_.dtype) ? add_up_floats(row) : add_up_integers(row);
        }
    }

private:
    void add_up_floats(int64_t row) {
        const int64_t from = along_.offset(in_, row), to = along_.offset(out_, row);
        float total = 0.0f;
        for (int64_t i = 0; i < in_.sizes[along_.dim()]; ++i) {
            float value;
            kernels_.load_floats(stream_of(in_), from + i * in_.strides[along_.dim()], 1, 1, &value);
            total += value;
            kernels_.store_floats(&total, stream_of(out_), to + i * out_.strides[along_.dim()], 1, 1);
        }
    }

    void add_up_integers(int64_t row) {
        const int64_t from = along_.offset(in_, row), to = along_.offset(out_, row);
        uint64_t total = 0;
        for (int64_t i = 0; i < in_.sizes[along_.dim()]; ++i) {
            const int64_t at = from + i * in_.strides[along_.dim()];
            total += static_cast<uint64_t>(integer(at));
            *integer_at(out_, to + i * out_.strides[along_.dim()]) = static_cast<int64_t>(total);
        }
    }

    int64_t integer(int64_t at) const {
        switch (in_.dtype) {
            case DType::i64:
                return *integer_at(in_, at);
            case DType::i32:
                return reinterpret_cast<const int32_t*>(in_.data)[at];
            default:
                return in_.data[at];
        }
    }

    const Kernels& kernels_;
    const RowsAlong along_;
    const Operand out_, in_;
};

// Values and indices of the first of each row in an order, of which the best `sorted` are in order.
class Ordered : public Stage {
public:
    Ordered(Builder& builder, const RowsAlong& along, const Operand& values, const Operand& indices, const Operand& in,
            bool largest)
        : kernels_(builder.kernels),
          along_(along),
          values_(values),
          indices_(indices),
          in_(in),
          largest_(largest),
          n_(in.sizes[along.dim()]),
          k_(indices.sizes[along.dim()]),
          row_(builder.scratch(n_ * int64_t{sizeof(float)})),
          order_(builder.scratch(n_ * int64_t{sizeof(int64_t)})) {}

    void compute(int64_t, Run& run) override {
        auto* row = reinterpret_cast<float*>(run.scratch + row_);
        auto* order = reinterpret_cast<int64_t*>(run.scratch + order_);
        for (int64_t r = 0; r < along_.rows; ++r) {
            const int dim = along_.dim();
            kernels_.load_floats(stream_of(in_), along_.offset(in_, r), in_.strides[dim], n_, row);
            const auto before = [&](int64_t a, int64_t b) {  // the first of equals is first
                const bool greater = is_greater(row[a], row[b]), less = is_greater(row[b], row[a]);
                return greater || less ? greater == largest_ : a < b;
            };
            if (k_ == 1) {
                order[0] = 0;
                for (int64_t i = 1; i < n_; ++i) order[0] = before(i, order[0]) ? i : order[0];
            } else {
                std::iota(order, order + n_, int64_t{0});
                std::partial_sort(order, order + k_, order + n_, before);
            }
            for (int64_t i = 0; i < k_; ++i) {
                *integer_at(indices_, along_.offset(indices_, r) + i * indices_.strides[dim]) = order[i];
                if (!values_) continue;
                const int64_t at = along_.offset(values_, r) + i * values_.strides[dim];
                kernels_.store_floats(row + order[i], stream_of(values_), at, 1, 1);
            }
        }
    }

private:
    const Kernels& kernels_;
    const RowsAlong along_;
    const Operand values_, indices_, in_;
    const bool largest_;
    const int64_t n_, k_;
    const int64_t row_, order_;
};

void add_ordered(const Arguments& arguments, Builder& builder, const Operand& values, const Operand& indices,
                 const Operand& in, int dim, int64_t k, bool largest) {
    arguments.require(is_float(in.dtype), "the input must be of floats");
    arguments.require(!values || values.dtype == in.dtype, "the values must be of the input's dtype");
    arguments.require(indices.dtype == DType::i64, "the indices must be int64");
    const Operand* tensors[] = {&indices, &in, values ? &values : &in};
    const RowsAlong along(arguments, dim, tensors);
    arguments.require(indices.sizes[dim] == k && k >= 0 && k <= in.sizes[dim], "there are not as many elements");
    arguments.require(!values || values.sizes[dim] == k, "the shapes do not match");
    if (k > 0) builder.add(std::make_unique<Ordered>(builder, along, values, indices, in, largest));
}

}  // namespace

void build_cumsum(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &in = arguments.tensor(1);
    const int dim = arguments.dimension(0, out.ndim);
    const bool floats = is_float(out.dtype);
    arguments.require(floats == is_float(in.dtype) && (floats || out.dtype == DType::i64),
                      "the dtypes are not supported");
    const Operand* tensors[] = {&out, &in};
    const RowsAlong along(arguments, dim, tensors);
    arguments.require(out.sizes[dim] == in.sizes[dim], "the shapes do not match");
    builder.add(std::make_unique<Cumsum>(builder.kernels, along, out, in));
}

void build_argmax(const Arguments& arguments, Builder& builder) {
    const Operand& in = arguments.tensor(1);
    Operand out = arguments.tensor(0);
    const int dim = arguments.dimension(0, in.ndim);
    if (out.ndim == in.ndim - 1) {  // the dimension is kept, of one element
        std::copy_backward(out.sizes + dim, out.sizes + out.ndim, out.sizes + out.ndim + 1);
        std::copy_backward(out.strides + dim, out.strides + out.ndim, out.strides + out.ndim + 1);
        out.sizes[dim] = 1;
        out.strides[dim] = 0;
        ++out.ndim;
    }
    arguments.require(out.ndim == in.ndim, "the shapes do not match");
    add_ordered(arguments, builder, Operand{}, out, in, dim, 1, true);
}

void build_topk(const Arguments& arguments, Builder& builder) {
    const Operand& in = arguments.tensor(2);
    add_ordered(arguments, builder, arguments.tensor(0), arguments.tensor(1), in, arguments.dimension(1, in.ndim),
                arguments.integer(0), arguments.integer(2, 1) != 0);
}

// Tensors: values, indices, in; integers: dim, descending. Equals stay in their order.
void build_sort(const Arguments& arguments, Builder& builder) {
    const Operand& in = arguments.tensor(2);
    const int dim = arguments.dimension(0, in.ndim);
    add_ordered(arguments, builder, arguments.tensor(0), arguments.tensor(1), in, dim, in.sizes[dim],
                arguments.integer(1, 0) != 0);
}

}  // namespace torchgguf::plan
