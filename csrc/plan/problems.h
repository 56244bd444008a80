// What the instructions of a plan compute, as plain numbers, and what an instruction set brings to compute it.
#pragma once

#include <cstdint>

#include "plan/operand.h"

namespace torchgguf::plan {

// One tensor in a loop over several: where it begins, and how far apart its elements are along each loop.
struct Stream {
    uint8_t* data = nullptr;
    DType dtype = DType::f32;
    int64_t strides[kMaxDims] = {};
};

// Nested loops; the last is the innermost. Where there is none, it is one step.
struct Loops {
    int count = 1;
    int64_t sizes[kMaxDims] = {1};

    TORCHGGUF_INLINED int64_t inner() const { return sizes[count - 1]; }
    TORCHGGUF_INLINED int64_t outer() const {
        int64_t total = 1;
        for (int i = 0; i + 1 < count; ++i) total *= sizes[i];
        return total;
    }
};

// Functions of one, two or three numbers. The order is that of the tables in kernels/.
enum class Function : uint8_t {
    copy,
    neg,
    exp,
    log,
    log1p,
    sqrt,
    rsqrt,
    tanh,
    sigmoid,
    silu,
    gelu,
    gelu_tanh,
    relu,
    softplus,
    abs,
    reciprocal,
    square,
    sin,
    cos,
    logical_not,
    floor,
    ceil,
    round,
    trunc,
    erf,
    sign,
    clamp,
    add,
    sub,
    rsub,
    mul,
    div,
    max,
    min,
    pow,
    eq,
    ne,
    lt,
    le,
    gt,
    ge,
    bit_and,
    bit_or,
    bit_xor,
    floordiv,
    remainder,
    silu_mul,
    gelu_mul,
    gelu_tanh_mul,
    where,
    addcmul,
    count
};

constexpr int kMaxInputs = 3;
constexpr int kMaxParameters = 2;

// out = function(inputs, parameters), element by element.
struct Pointwise {
    Function function = Function::copy;
    bool integers = false;  // computes in int64, not in FP32
    int inputs = 1;
    Loops loops;
    Stream out;
    Stream in[kMaxInputs];
    float parameters[kMaxParameters] = {};
    int64_t integer_parameters[kMaxParameters] = {};
};

constexpr int64_t kRun = 512;  // elements that are computed at a time

enum class Reduction : uint8_t { sum, mean, max, min, prod, any, all };

// out = reduction of the inner loops, for each step of the outer ones.
struct Reduce {
    Reduction reduction = Reduction::sum;
    bool integers = false;
    Loops kept, reduced;
    Stream out;         // strides of the kept loops
    Stream in;          // strides of the kept loops
    Stream in_reduced;  // strides of the reduced loops; no data
};

// Rows along the last loop. `in` may be any; `out` too.
struct Softmax {
    bool logarithm = false;
    Loops loops;
    Stream out, in;
};

// out = (x - mean) / sqrt(variance + eps) * weight + bias, or without the mean. With `added`, x is x + added, and the
// sum is written to `sum`.
struct Normalization {
    bool centered = false;
    float eps = 0.0f;
    Loops loops;
    Stream out, x, weight, bias;  // of weight and bias only the stride of the last loop is used; both may be absent
    Stream added, sum;            // may be absent
};

// Rows of out = rows of a, times b: one step of the loops is one row.
struct Matmul {
    int64_t depth, columns;
    Loops loops;
    Stream out, a, b;  // strides of the loops
    int64_t out_step, a_step, b_row, b_column;
};

// Of the last dimension the first `rotated` numbers: out = x * cos + (x, turned by half of them) * sin, where the sine
// carries the sign; the others are copied. Of `neighbours`, pairs lie side by side in x: they are taken apart first.
struct Rope {
    bool neighbours;
    int64_t rotated;
    Loops loops;  // the last is over the whole dimension
    Stream out, x, cos, sin;
};

// Attention of few queries. All of one text's heads that share keys are a task, of a part of the keys.
struct Attention {
    int64_t batch, heads, key_heads, queries, keys, size, value_size;
    float scale, softcap;  // softcap 0: none
    Operand q, k, v, out;  // (B, H, T, D), (B, K, S, D), (B, K, S, V), (B, H, T, V)
    Operand mask;          // (B, H, T, S), strides 0 where broadcast; FP32 is added, bool allows; may be absent
    Operand sinks;         // (H) or absent
};

constexpr int64_t kMaxHeadSize = 1024;  // of attention and of what is rotated
constexpr int64_t kWidestVector = 16;   // floats: rows in memory of our own are padded to as many

// A part of the keys of one group of heads, and memory for its result: for each query of the group its maximum, its
// sum, then its values, not divided.
struct AttentionPart {
    int64_t batch, key_head, first, last;
    float* maxima;   // (group * queries)
    float* sums;     // (group * queries)
    float* values;   // (group * queries, padded value_size)
    float* queries;  // (group * queries, padded size), to work in
    float* scores;   // (group * queries, last - first), to work in
};

struct Kernels {
    bool (*has)(Function function, bool integers);
    void (*pointwise)(const Pointwise& problem, int64_t first_run, int64_t last_run);
    void (*reduce)(const Reduce& problem, int64_t first, int64_t last);
    void (*softmax)(const Softmax& problem, int64_t first, int64_t last, float* row);
    void (*normalize)(const Normalization& problem, int64_t first, int64_t last, float* row);
    void (*rope)(const Rope& problem, int64_t first, int64_t last, float* row);
    void (*matmul)(const Matmul& problem, int64_t first, int64_t last, float* memory);
    void (*attend)(const Attention& problem, const AttentionPart& part);
    void (*merge)(const Attention& problem, const AttentionPart* parts, int64_t count);
    // `count` elements, `stride` apart, as floats, and back.
    void (*load_floats)(const Stream& from, int64_t offset, int64_t stride, int64_t count, float* to);
    void (*store_floats)(const float* from, const Stream& to, int64_t offset, int64_t stride, int64_t count);
};

}  // namespace torchgguf::plan
