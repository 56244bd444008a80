// Instructions that multiply matrices: linear layers with packed or plain weights, and small products of activations.
#include <algorithm>
#include <cstring>

#include "formats/layouts.h"
#include "grids.h"
#include "isa/registry.h"
#include "linear.h"
#include "plan/build/families.h"

namespace torchgguf::plan {
namespace {

// Packed bytes of a chunk: enough that drawing one does not count, few enough that the last ones end together.
constexpr int64_t kBytesPerChunk = 16 * 1024;
constexpr int64_t kRowsTogether = 16;  // a kernel may compute as many rows at a time

// The ids of the types whose blocks are one plain number, by dtype.
int plain_type(const Arguments& arguments, DType dtype) {
    arguments.require(is_float(dtype), "a plain weight must be of floats");
    return dtype == DType::f32 ? F32::id : dtype == DType::f16 ? F16::id : BF16::id;
}

// A tensor of floats as FP32 side by side: its own memory, or a copy in the scratch memory.
class Floats {
public:
    Floats() = default;
    Floats(const Arguments& arguments, Builder& builder, const Operand& tensor) : tensor_(tensor) {
        arguments.require(!tensor || is_float(tensor.dtype), "a tensor must be of floats");
        direct_ = !tensor || (tensor.dtype == DType::f32 && tensor.is_contiguous());
        columns_ = tensor.ndim ? tensor.size(-1) : 1;
        rows_ = columns_ ? tensor.numel() / columns_ : 0;
        if (!direct_) scratch_ = builder.scratch(tensor.numel() * int64_t{sizeof(float)});
    }

    bool direct() const { return direct_; }

    float* data(const Run& run) const {
        return reinterpret_cast<float*>(direct_ ? tensor_.data : run.scratch + scratch_);
    }

    void load(const Kernels& kernels, const Run& run) const {
        if (direct_) return;
        const int64_t step = tensor_.ndim ? tensor_.stride(-1) : 1;
        for (int64_t row = 0; row < rows_; ++row) {
            kernels.load_floats(stream(), offset(row), step, columns_, data(run) + row * columns_);
        }
    }

    // Columns [begin, end) of all rows.
    void store(const Kernels& kernels, const Run& run, int64_t begin, int64_t end) const {
        if (direct_) return;
        const int64_t step = tensor_.ndim ? tensor_.stride(-1) : 1;
        for (int64_t row = 0; row < rows_; ++row) {
            const float* from = data(run) + row * columns_ + begin;
            kernels.store_floats(from, stream(), offset(row) + begin * step, step, end - begin);
        }
    }

private:
    Stream stream() const { return {tensor_.data, tensor_.dtype, {}}; }
    int64_t offset(int64_t row) const {
        int64_t result = 0;
        for (int i = tensor_.ndim - 2; i >= 0; --i) {
            result += row % tensor_.sizes[i] * tensor_.strides[i];
            row /= tensor_.sizes[i];
        }
        return result;
    }

    Operand tensor_;
    bool direct_ = true;
    int64_t rows_ = 0, columns_ = 0, scratch_ = 0;
};

// One of several products with the same activations.
struct Product {
    const LinearKernel* kernel = nullptr;
    LinearProblem problem{};
    Floats bias, out;
    std::size_t prepared = 0;  // which of the prepared activations
    int64_t rows_per_chunk = 0, first_chunk = 0;
    // If one of several weights is chosen when the program runs: by this number, of so many.
    const int64_t* index = nullptr;
    const uint8_t* weights = nullptr;
    int64_t choices = 1, choice_bytes = 0, bias_step = 0;
};

struct Prepared {
    const LinearKernel* kernel;
    std::size_t product;  // of which the problem says how
    int64_t scratch;
};

struct Linear {
    const Kernels* kernels;
    Floats x;
    std::vector<Product> products;
    std::vector<Prepared> prepared;
    int64_t chunks = 0;

    // A weight (rows, bytes) or (rows, columns).
    void add(const Arguments& arguments, Builder& builder, const Operand& x_operand, const Operand& out,
             const Operand& weight, const Operand& bias, int64_t type_id) {
        Product product;
        LinearProblem& p = product.problem;
        const bool plain = type_id == -1;
        arguments.require(plain || (type_id >= 0 && type_id < kTableSize), "there is no such type");
        p.type = plain ? plain_type(arguments, weight.dtype) : static_cast<int>(type_id);
        arguments.require(plain || weight.dtype == DType::u8, "a packed weight must be uint8");
        arguments.require(weight.ndim == 2 && weight.is_contiguous(), "a weight must be a contiguous matrix");
        product.kernel = find_linear(p.type);
        arguments.require(product.kernel && !lacks_grid(p.type), "no kernel multiplies the type");
        const BlockSize block = kBlockSizes.by_id[p.type];
        p.weight = weight.data;
        p.row_bytes = weight.sizes[1] * item_size(weight.dtype);
        arguments.require(p.row_bytes % block.bytes == 0, "the weight's rows are not whole blocks");
        p.in_features = p.row_bytes / block.bytes * block.weights;
        p.out_features = weight.sizes[0];
        p.rows = x_operand.numel() / std::max<int64_t>(p.in_features, 1);
        arguments.require(p.in_features > 0 && x_operand.size(-1) == p.in_features, "x does not match the weight");
        arguments.require(out.ndim > 0 && out.size(-1) == p.out_features && out.numel() == p.rows * p.out_features,
                          "the result does not match the weight and x");
        product.bias = Floats(arguments, builder, bias);
        product.out = Floats(arguments, builder, out);
        const int64_t rows = kBytesPerChunk / p.row_bytes / kRowsTogether * kRowsTogether;
        product.rows_per_chunk = std::max(rows, kRowsTogether);
        product.first_chunk = chunks;
        chunks += (p.out_features + product.rows_per_chunk - 1) / product.rows_per_chunk;
        // Kernels that prepare alike share what is prepared.
        const auto alike = [&](const Prepared& other) {
            return other.kernel->prepare == product.kernel->prepare &&
                   other.kernel->workspace_bytes == product.kernel->workspace_bytes;
        };
        const auto found = std::ranges::find_if(prepared, alike);
        product.prepared = static_cast<std::size_t>(found - prepared.begin());
        if (found == prepared.end()) {
            const int64_t bytes = product.kernel->workspace_bytes(p.in_features, p.rows);
            prepared.push_back({product.kernel, products.size(), builder.scratch(bytes)});
        }
        products.push_back(std::move(product));
    }
};

// Converts what has another dtype, chooses weights and prepares the activations.
class Prepare : public Stage {
public:
    explicit Prepare(std::shared_ptr<Linear> linear) : linear_(std::move(linear)) {}

    void compute(int64_t, Run& run) override {
        const Kernels& kernels = *linear_->kernels;
        linear_->x.load(kernels, run);
        for (Product& product : linear_->products) {
            product.problem.x = linear_->x.data(run);
            product.problem.y = product.out.data(run);
            product.bias.load(kernels, run);
            product.problem.bias = product.bias.data(run);
            if (product.index) choose(product, run);
        }
        for (const Prepared& prepared : linear_->prepared) {
            prepared.kernel->prepare(linear_->products[prepared.product].problem, run.scratch + prepared.scratch);
        }
    }

private:
    static void choose(Product& product, Run& run) {
        int64_t chosen = *product.index;
        if (chosen < 0 || chosen >= product.choices) {
            run.fail("linear_indexed: the index is outside of the weights");
            chosen = 0;
        }
        product.problem.weight = product.weights + chosen * product.choice_bytes;
        if (product.problem.bias) product.problem.bias += chosen * product.bias_step;
    }

    std::shared_ptr<Linear> linear_;
};

class Multiply : public Stage {
public:
    explicit Multiply(std::shared_ptr<Linear> linear) : linear_(std::move(linear)) {}

    int64_t begin(Run&) override { return linear_->chunks; }

    void compute(int64_t chunk, Run& run) override {
        std::size_t i = linear_->products.size() - 1;
        while (linear_->products[i].first_chunk > chunk) --i;
        const Product& product = linear_->products[i];
        const int64_t begin = (chunk - product.first_chunk) * product.rows_per_chunk;
        const int64_t end = std::min(begin + product.rows_per_chunk, product.problem.out_features);
        const uint8_t* prepared = run.scratch + linear_->prepared[product.prepared].scratch;
        product.kernel->compute(product.problem, prepared, begin, end);
        product.out.store(*linear_->kernels, run, begin, end);
    }

private:
    std::shared_ptr<Linear> linear_;
};

void add_linear(Builder& builder, std::shared_ptr<Linear> linear) {
    if (linear->chunks == 0 || linear->products[0].problem.rows == 0) return;
    builder.add(std::make_unique<Prepare>(linear));
    builder.add(std::make_unique<Multiply>(linear));
}

class MatmulStage : public Stage {
public:
    MatmulStage(Builder& builder, const Matmul& problem)
        : kernels_(builder.kernels), problem_(problem), rows_(problem.loops.outer() * problem.loops.inner()) {
        const int64_t work = problem.depth * problem.columns;
        per_chunk_ = std::max<int64_t>(1, kProductsPerChunk / std::max<int64_t>(work, 1));
        chunks_ = (rows_ + per_chunk_ - 1) / per_chunk_;
        chunk_bytes_ = ((problem.depth * 2 + problem.columns * 2) * int64_t{sizeof(float)} + 63) / 64 * 64;
        scratch_ = builder.scratch(chunks_ * chunk_bytes_);
    }

    int64_t begin(Run&) override { return chunks_; }

    void compute(int64_t chunk, Run& run) override {
        auto* memory = reinterpret_cast<float*>(run.scratch + scratch_ + chunk * chunk_bytes_);
        kernels_.matmul(problem_, chunk * per_chunk_, std::min((chunk + 1) * per_chunk_, rows_), memory);
    }

private:
    static constexpr int64_t kProductsPerChunk = 1 << 15;

    const Kernels& kernels_;
    const Matmul problem_;
    const int64_t rows_;
    int64_t per_chunk_, chunks_, chunk_bytes_, scratch_;
};

}  // namespace

void build_linear(const Arguments& arguments, Builder& builder) {
    const int64_t n = arguments.integer(0);
    arguments.require(n > 0 && arguments.tensors.size() >= static_cast<std::size_t>(2 * n + 1),
                      "there are not as many tensors");
    const auto count = static_cast<std::size_t>(n);
    const Operand& x = arguments.tensor(count);
    auto linear = std::make_shared<Linear>();
    linear->kernels = &builder.kernels;
    arguments.require(x.ndim > 0, "x must have dimensions");
    linear->x = Floats(arguments, builder, x);
    for (std::size_t i = 0; i < count; ++i) {
        const Operand& weight = arguments.tensor(count + 1 + i);
        const Operand bias = arguments.optional(2 * count + 1 + i);
        arguments.require(!bias || (bias.ndim == 1 && bias.sizes[0] == weight.size(0)), "a bias does not match");
        linear->add(arguments, builder, x, arguments.tensor(i), weight, bias, arguments.integer(1 + i));
    }
    add_linear(builder, std::move(linear));
}

// Tensors: n outs, x, n weights (E, rows, bytes or columns), n indices, n biases (E, rows) or none; integers: n and n
// types, or one type.
void build_linear_indexed(const Arguments& arguments, Builder& builder) {
    const bool single = arguments.ints.size() == 1;
    const int64_t n = single ? 1 : arguments.integer(0);
    arguments.require(n > 0 && arguments.tensors.size() >= static_cast<std::size_t>(3 * n + 1),
                      "there are not as many tensors");
    const auto count = static_cast<std::size_t>(n);
    const Operand& x = arguments.tensor(count);
    arguments.require(x.ndim > 0, "x must have dimensions");
    auto linear = std::make_shared<Linear>();
    linear->kernels = &builder.kernels;
    linear->x = Floats(arguments, builder, x);
    for (std::size_t i = 0; i < count; ++i) {
        const Operand &weights = arguments.tensor(count + 1 + i), &index = arguments.tensor(2 * count + 1 + i);
        const Operand biases = arguments.optional(3 * count + 1 + i);
        arguments.require(weights.ndim == 3 && weights.is_contiguous() && weights.sizes[0] > 0,
                          "the weights must be contiguous, in three dimensions");
        arguments.require(index.dtype == DType::i64 && index.numel() == 1, "the index must be one int64");
        arguments.require(
            !biases || (biases.ndim == 2 && biases.sizes[0] == weights.sizes[0] &&
                        biases.sizes[1] == weights.sizes[1] && biases.dtype == DType::f32 && biases.strides[1] == 1),
            "the biases do not match");
        const Operand bias = biases ? biases.select(0, 0) : Operand{};
        linear->add(arguments, builder, x, arguments.tensor(i), weights.select(0, 0), bias,
                    arguments.integer(single ? 0 : 1 + i));
        Product& product = linear->products.back();
        product.index = reinterpret_cast<const int64_t*>(index.data);
        product.weights = weights.data;
        product.choices = weights.sizes[0];
        product.choice_bytes = weights.strides[0] * item_size(weights.dtype);
        product.bias_step = biases ? biases.strides[0] : 0;
    }
    add_linear(builder, std::move(linear));
}

// out (..., M, N) = a (..., M, K) b (..., K, N), where leading dimensions broadcast.
void build_matmul(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &a = arguments.tensor(1), &b = arguments.tensor(2);
    arguments.require(out.ndim >= 2 && a.ndim >= 2 && b.ndim >= 2, "the tensors must be matrices");
    arguments.require(is_float(out.dtype) && is_float(a.dtype) && is_float(b.dtype), "the tensors must be of floats");
    Matmul problem{.depth = a.size(-1),
                   .columns = out.size(-1),
                   .loops = {},
                   .out = {},
                   .a = {},
                   .b = {},
                   .out_step = out.stride(-1),
                   .a_step = a.stride(-1),
                   .b_row = b.stride(-2),
                   .b_column = b.stride(-1)};
    arguments.require(b.size(-2) == problem.depth && b.size(-1) == problem.columns && a.size(-2) == out.size(-2),
                      "the shapes do not match");
    if (out.numel() == 0) return;
    // Of the loops that are left, the last is over rows: b is the same in all of its steps.
    Operand rows_of_out = out, rows_of_a = a, rows_of_b = b;
    --rows_of_out.ndim, --rows_of_a.ndim, --rows_of_b.ndim;
    rows_of_b.sizes[rows_of_b.ndim - 1] = 1;
    const Operand* tensors[] = {&rows_of_out, &rows_of_a, &rows_of_b};
    const LoopNest nest(arguments, {rows_of_out.sizes, static_cast<std::size_t>(rows_of_out.ndim)}, tensors);
    problem.loops = nest.loops;
    problem.out = nest.streams[0], problem.a = nest.streams[1], problem.b = nest.streams[2];
    builder.add(std::make_unique<MatmulStage>(builder, problem));
}

}  // namespace torchgguf::plan
