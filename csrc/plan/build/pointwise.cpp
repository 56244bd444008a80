// Instructions that compute element by element, and those that only move elements.
#include <algorithm>
#include <limits>

#include "plan/build/families.h"
#include "plan/build/pointwise_stage.h"

namespace torchgguf::plan {
namespace {

// About as many runs as take longer than it takes to split them over threads.
constexpr int64_t kRunsPerChunk = 32;

enum class Domain { floats, integers, either };

struct NamedFunction {
    std::string_view name;
    Function function;
    Domain domain;  // floats: integers are converted first, as torch does
};

constexpr NamedFunction kUnary[] = {
    {"neg", Function::neg, Domain::either},
    {"exp", Function::exp, Domain::floats},
    {"log", Function::log, Domain::floats},
    {"log1p", Function::log1p, Domain::floats},
    {"sqrt", Function::sqrt, Domain::floats},
    {"rsqrt", Function::rsqrt, Domain::floats},
    {"tanh", Function::tanh, Domain::floats},
    {"sigmoid", Function::sigmoid, Domain::floats},
    {"silu", Function::silu, Domain::floats},
    {"gelu", Function::gelu, Domain::floats},
    {"gelu_tanh", Function::gelu_tanh, Domain::floats},
    {"relu", Function::relu, Domain::either},
    {"softplus", Function::softplus, Domain::floats},
    {"abs", Function::abs, Domain::either},
    {"reciprocal", Function::reciprocal, Domain::floats},
    {"square", Function::square, Domain::either},
    {"sin", Function::sin, Domain::floats},
    {"cos", Function::cos, Domain::floats},
    {"not", Function::logical_not, Domain::either},
    {"floor", Function::floor, Domain::floats},
    {"ceil", Function::ceil, Domain::floats},
    {"round", Function::round, Domain::floats},
    {"trunc", Function::trunc, Domain::floats},
    {"erf", Function::erf, Domain::floats},
    {"sign", Function::sign, Domain::either},
};

constexpr NamedFunction kBinary[] = {
    {"add", Function::add, Domain::either},
    {"sub", Function::sub, Domain::either},
    {"rsub", Function::rsub, Domain::either},
    {"mul", Function::mul, Domain::either},
    {"div", Function::div, Domain::floats},
    {"max", Function::max, Domain::either},
    {"min", Function::min, Domain::either},
    {"pow", Function::pow, Domain::floats},
    {"eq", Function::eq, Domain::either},
    {"ne", Function::ne, Domain::either},
    {"lt", Function::lt, Domain::either},
    {"le", Function::le, Domain::either},
    {"gt", Function::gt, Domain::either},
    {"ge", Function::ge, Domain::either},
    {"and", Function::bit_and, Domain::integers},
    {"or", Function::bit_or, Domain::integers},
    {"xor", Function::bit_xor, Domain::integers},
    {"floordiv", Function::floordiv, Domain::either},
    {"remainder", Function::remainder, Domain::either},
    {"silu_mul", Function::silu_mul, Domain::floats},
    {"gelu_mul", Function::gelu_mul, Domain::floats},
    {"gelu_tanh_mul", Function::gelu_tanh_mul, Domain::floats},
};

const NamedFunction& named(const Arguments& arguments, std::span<const NamedFunction> table) {
    const auto row = std::ranges::find(table, arguments.variant, &NamedFunction::name);
    if (row == table.end()) arguments.refuse("there is no such function");
    return *row;
}

// Whether a function of these inputs is computed in integers.
bool in_integers(const Arguments& arguments, Domain domain, bool any_float) {
    arguments.require(domain != Domain::integers || !any_float, "the inputs must be integers");
    return domain != Domain::floats && !any_float;
}

std::span<const int64_t> shape_of(const Operand& tensor) {
    return {tensor.sizes, static_cast<std::size_t>(tensor.ndim)};
}

}  // namespace

PointwiseStage::PointwiseStage(const Kernels& kernels, const Pointwise& problem)
    : kernels_(kernels), problem_(problem) {
    runs_ = problem.loops.outer() * ((problem.loops.inner() + kRun - 1) / kRun);
    // Short runs count less than whole ones.
    const int64_t length = std::clamp<int64_t>(problem.loops.inner(), 16, kRun);
    runs_of_chunk_ = kRunsPerChunk * kRun / length;
    chunks_ = (runs_ + runs_of_chunk_ - 1) / runs_of_chunk_;
}

void PointwiseStage::compute(int64_t chunk, Run&) {
    const int64_t first = chunk * runs_of_chunk_;
    kernels_.pointwise(problem_, first, std::min(first + runs_of_chunk_, runs_));
}

void add_pointwise(const Arguments& arguments, Builder& builder, Function function,
                   std::span<const Operand* const> tensors, bool integers, std::span<const double> parameters,
                   std::span<const double> numbers) {
    arguments.require(builder.kernels.has(function, integers), "the dtypes are not supported");
    const Operand& out = *tensors[0];
    const LoopNest nest(arguments, shape_of(out), tensors);
    if (out.numel() == 0) return;
    Pointwise problem{.function = function,
                      .integers = integers,
                      .inputs = static_cast<int>(tensors.size()) - 1,
                      .loops = nest.loops,
                      .out = nest.streams[0],
                      .in = {},
                      .parameters = {},
                      .integer_parameters = {}};
    for (int i = 0; i < problem.inputs; ++i) problem.in[i] = nest.streams[i + 1];
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        problem.parameters[i] = static_cast<float>(parameters[i]);
        constexpr double least = -0x1p63, most = 0x1p63;
        problem.integer_parameters[i] = parameters[i] < least   ? std::numeric_limits<int64_t>::min()
                                        : parameters[i] >= most ? std::numeric_limits<int64_t>::max()
                                                                : static_cast<int64_t>(parameters[i]);
    }
    auto stage = std::make_unique<PointwiseStage>(builder.kernels, problem);
    for (std::size_t i = 0; i < static_cast<std::size_t>(problem.inputs); ++i) {
        if (*tensors[i + 1]) continue;
        const double value = numbers[i];
        arguments.require(!integers || (value > -0x1p63 && value < 0x1p63), "the number is no 64-bit integer");
        stage->numbers_[i] = static_cast<float>(value);
        stage->integer_numbers_[i] = integers ? static_cast<int64_t>(value) : 0;
        void* at = integers ? static_cast<void*>(&stage->integer_numbers_[i]) : static_cast<void*>(&stage->numbers_[i]);
        stage->problem_.in[i] = {static_cast<uint8_t*>(at), integers ? DType::i64 : DType::f32, {}};
    }
    builder.add(std::move(stage));
}

void add_copy(const Arguments& arguments, Builder& builder, const Operand& to, const Operand& from) {
    const Operand* tensors[] = {&to, &from};
    add_pointwise(arguments, builder, Function::copy, tensors, !is_float(from.dtype));
}

void build_copy(const Arguments& arguments, Builder& builder) {
    add_copy(arguments, builder, arguments.tensor(0), arguments.tensor(1));
}

void build_fill(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), number{};
    const Operand* tensors[] = {&out, &number};
    const double value[] = {arguments.number(0)};
    add_pointwise(arguments, builder, Function::copy, tensors, !is_float(out.dtype), {}, value);
}

void build_unary(const Arguments& arguments, Builder& builder) {
    const NamedFunction& row = named(arguments, kUnary);
    const Operand &out = arguments.tensor(0), &in = arguments.tensor(1);
    const double softplus[] = {arguments.number(0, 1.0), arguments.number(1, 20.0)};
    const Operand* tensors[] = {&out, &in};
    add_pointwise(arguments, builder, row.function, tensors, in_integers(arguments, row.domain, is_float(in.dtype)),
                  row.function == Function::softplus ? std::span<const double>(softplus) : std::span<const double>());
}

void build_binary(const Arguments& arguments, Builder& builder) {
    const NamedFunction& row = named(arguments, kBinary);
    const Operand &out = arguments.tensor(0), a = arguments.optional(1), b = arguments.optional(2);
    arguments.require(a || b, "one operand must be a tensor");
    arguments.require(arguments.tensors.size() == 3, "there must be three tensors");
    const double number = a && b ? 0.0 : arguments.number(1), numbers[] = {number, number};
    const double alpha[] = {arguments.number(0, 1.0)};
    const bool integers = in_integers(arguments, row.domain, is_float(a.dtype) || is_float(b.dtype));
    arguments.require(!integers || alpha[0] == static_cast<double>(static_cast<int64_t>(alpha[0])),
                      "alpha must be an integer");
    const Operand* tensors[] = {&out, &a, &b};
    add_pointwise(arguments, builder, row.function, tensors, integers, alpha, numbers);
}

void build_where(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &condition = arguments.tensor(1);
    const Operand a = arguments.optional(2), b = arguments.optional(3);
    const double numbers[] = {0.0, a ? 0.0 : arguments.number(0), b ? 0.0 : arguments.number(1)};
    const Operand* tensors[] = {&out, &condition, &a, &b};
    add_pointwise(arguments, builder, Function::where, tensors, !is_float(out.dtype), {}, numbers);
}

void build_addcmul(const Arguments& arguments, Builder& builder) {
    const Operand& out = arguments.tensor(0);
    const Operand* tensors[] = {&out, &arguments.tensor(1), &arguments.tensor(2), &arguments.tensor(3)};
    const double value[] = {arguments.number(0, 1.0)};
    add_pointwise(arguments, builder, Function::addcmul, tensors, !is_float(out.dtype), value);
}

void build_clamp(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &in = arguments.tensor(1);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const double limits[] = {arguments.integer(0) ? arguments.number(0) : -infinity,
                             arguments.integer(1) ? arguments.number(1) : infinity};
    const Operand* tensors[] = {&out, &in};
    add_pointwise(arguments, builder, Function::clamp, tensors, !is_float(in.dtype), limits);
}

namespace {

// start, start + step, ...: constants, which are written at each run, as others may use the memory in between.
class Arange : public Stage {
public:
    Arange(const Kernels& kernels, const Operand& out, double start, double step)
        : kernels_(kernels), out_(out), start_(start), step_(step) {}

    void compute(int64_t, Run&) override {
        for (int64_t i = 0; i < out_.sizes[0]; ++i) {
            const double value = start_ + static_cast<double>(i) * step_;
            uint8_t* to = out_.data + i * out_.strides[0] * item_size(out_.dtype);
            if (out_.dtype == DType::i64) {
                *reinterpret_cast<int64_t*>(to) = static_cast<int64_t>(value);
            } else {
                const auto number = static_cast<float>(value);
                kernels_.store_floats(&number, {to, out_.dtype, {}}, 0, 1, 1);
            }
        }
    }

private:
    const Kernels& kernels_;
    const Operand out_;
    const double start_, step_;
};

}  // namespace

void build_arange(const Arguments& arguments, Builder& builder) {
    const Operand& out = arguments.tensor(0);
    arguments.require(out.ndim == 1, "the result must have one dimension");
    const double start = arguments.ints.empty() ? arguments.number(0) : static_cast<double>(arguments.integer(0));
    const double step = arguments.ints.empty() ? arguments.number(1) : static_cast<double>(arguments.integer(1));
    builder.add(std::make_unique<Arange>(builder.kernels, out, start, step));
}

void build_cat(const Arguments& arguments, Builder& builder) {
    const Operand& out = arguments.tensor(0);
    const int dim = arguments.dimension(0, out.ndim);
    int64_t at = 0;
    for (std::size_t i = 1; i < arguments.tensors.size(); ++i) {
        const Operand& in = arguments.tensor(i);
        if (in.numel() == 0) continue;  // torch lets such a tensor have any shape
        arguments.require(in.ndim == out.ndim, "the tensors must have as many dimensions as the result");
        Operand part = out;
        part.data += at * out.strides[dim] * item_size(out.dtype);
        part.sizes[dim] = in.sizes[dim];
        at += in.sizes[dim];
        arguments.require(at <= out.sizes[dim], "the tensors are longer than the result");
        for (int d = 0; d < out.ndim; ++d) arguments.require(in.sizes[d] == part.sizes[d], "the shapes do not match");
        add_copy(arguments, builder, part, in);
    }
    arguments.require(at == out.sizes[dim], "the tensors are shorter than the result");
}

// What moves past the end of the dimension begins it again.
void build_roll(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &in = arguments.tensor(1);
    arguments.require(in.ndim == out.ndim, "the tensors must have as many dimensions as the result");
    const int dim = arguments.dimension(1, out.ndim);
    const int64_t size = out.sizes[dim];
    for (int d = 0; d < out.ndim; ++d) arguments.require(in.sizes[d] == out.sizes[d], "the shapes do not match");
    if (out.numel() == 0) return;
    const int64_t shift = (arguments.integer(0) % size + size) % size;
    const auto part = [dim](const Operand& tensor, int64_t first, int64_t count) {
        Operand result = tensor;
        result.data += first * tensor.strides[dim] * item_size(tensor.dtype);
        result.sizes[dim] = count;
        return result;
    };
    add_copy(arguments, builder, part(out, shift, size - shift), part(in, 0, size - shift));
    if (shift) add_copy(arguments, builder, part(out, 0, shift), part(in, size - shift, shift));
}

}  // namespace torchgguf::plan
