// Attention of few queries over a cache, of which the mask allows a part.
#include <algorithm>
#include <cstring>

#include "plan/build/families.h"

namespace torchgguf::plan {
namespace {

// Multiplications that are worth a part of their own.
constexpr int64_t kProductsPerPart = 1 << 14;
constexpr int64_t kMaxParts = 16;  // of the keys of one group of heads

// The first key of a row of the mask that is allowed, and one after the last.
struct Range {
    int64_t first, last;
};

Range allowed_bytes(const uint8_t* row, int64_t count) {
    const auto eight = [row](int64_t at) {
        uint64_t bytes;
        std::memcpy(&bytes, row + at, sizeof bytes);
        return bytes;
    };
    int64_t first = 0, last = count;
    while (first + 8 <= count && eight(first) == 0) first += 8;
    while (first < count && !row[first]) ++first;
    while (last - 8 >= first && eight(last - 8) == 0) last -= 8;
    while (last > first && !row[last - 1]) --last;
    return {first, last};
}

template <class Allows>
Range allowed_elements(int64_t count, Allows&& allows) {
    int64_t first = 0, last = count;
    while (first < count && !allows(first)) ++first;
    while (last > first && !allows(last - 1)) --last;
    return {first, last};
}

class AttentionStage : public Stage {
public:
    AttentionStage(Builder& builder, const Attention& problem)
        : kernels_(builder.kernels),
          problem_(problem),
          rows_(problem.heads / problem.key_heads * problem.queries),
          parts_(static_cast<std::size_t>(problem.batch * problem.key_heads * kMaxParts)) {
        const int64_t tasks = problem.batch * problem.key_heads;
        results_ = builder.scratch(tasks * kMaxParts * result_floats() * int64_t{sizeof(float)});
        scores_ = builder.scratch(tasks * rows_ * problem.keys * int64_t{sizeof(float)});
    }

    int64_t begin(Run& run) override {
        const Attention& p = problem_;
        count_ = 0;
        int64_t work = 0;
        for (int64_t b = 0; b < p.batch; ++b) {
            const Range range = allowed(b);
            work += (range.last - range.first) * p.heads * p.queries * (p.size + p.value_size);
        }
        const int64_t tasks = p.batch * p.key_heads;
        const int64_t useful = run.threads == 1 ? 1 : std::min(work / kProductsPerPart, int64_t{4} * run.threads);
        parts_of_group_ = std::clamp<int64_t>((useful + tasks - 1) / tasks, 1, kMaxParts);
        float* scores = reinterpret_cast<float*>(run.scratch + scores_);
        for (int64_t b = 0; b < p.batch; ++b) {
            const Range range = allowed(b);
            const int64_t length = (range.last - range.first + parts_of_group_ - 1) / parts_of_group_;
            for (int64_t h = 0; h < p.key_heads; ++h) {
                for (int64_t i = 0; i < parts_of_group_; ++i) {
                    const int64_t first = std::min(range.first + i * length, range.last);
                    const int64_t last = std::min(first + length, range.last);
                    auto* result = reinterpret_cast<float*>(run.scratch + results_) + count_ * result_floats();
                    float* queries = result + values_floats();
                    float* maxima = queries + rows_ * padded(p.size);
                    parts_[count_++] = {.batch = b,
                                        .key_head = h,
                                        .first = first,
                                        .last = last,
                                        .maxima = maxima,
                                        .sums = maxima + rows_,
                                        .values = result,
                                        .queries = queries,
                                        .scores = scores};
                    scores += rows_ * (last - first);
                }
            }
        }
        together_ = useful <= 1;
        return together_ ? 1 : count_;
    }

    void compute(int64_t chunk, Run&) override {
        if (!together_) return kernels_.attend(problem_, parts_[chunk]);
        for (int64_t i = 0; i < count_; ++i) kernels_.attend(problem_, parts_[i]);
    }

    void merge() const {
        for (int64_t i = 0; i < count_; i += parts_of_group_) kernels_.merge(problem_, &parts_[i], parts_of_group_);
    }

private:
    static int64_t padded(int64_t n) { return (n + kWidestVector - 1) / kWidestVector * kWidestVector; }
    int64_t values_floats() const { return rows_ * padded(problem_.value_size); }
    int64_t result_floats() const { return values_floats() + rows_ * padded(problem_.size) + padded(2 * rows_); }

    // The keys that any query of a text is allowed to see. A row of floats that allows none sees all, as their
    // softmax is not zero; one of booleans sees none, and its result is zero.
    Range allowed(int64_t batch) const {
        const Attention& p = problem_;
        if (!p.mask) return {0, p.keys};
        Range found{p.keys, 0};
        const int64_t heads = p.mask.strides[1] ? p.heads : 1, queries = p.mask.strides[2] ? p.queries : 1;
        const int64_t step = p.mask.strides[3];
        for (int64_t h = 0; h < heads; ++h) {
            for (int64_t t = 0; t < queries; ++t) {
                const int64_t at = batch * p.mask.strides[0] + h * p.mask.strides[1] + t * p.mask.strides[2];
                Range row;
                if (p.mask.dtype == DType::boolean) {
                    const uint8_t* bytes = p.mask.data + at;
                    row = step == 1 ? allowed_bytes(bytes, p.keys)
                                    : allowed_elements(p.keys, [&](int64_t i) { return bytes[i * step] != 0; });
                } else {
                    const auto* floats = reinterpret_cast<const float*>(p.mask.data) + at;
                    row = allowed_elements(p.keys, [&](int64_t i) { return !(floats[i * step] <= kForbidden); });
                    if (row.first == row.last) row = {0, p.keys};
                }
                if (row.first == row.last) continue;
                found = {std::min(found.first, row.first), std::max(found.last, row.last)};
            }
        }
        return found.first < found.last ? found : Range{0, 0};
    }

    static constexpr float kForbidden = -3e38f;  // such masks leave of a key's weight nothing, beside any other

    const Kernels& kernels_;
    const Attention problem_;
    const int64_t rows_;
    std::vector<AttentionPart> parts_;
    int64_t results_, scores_;
    int64_t count_ = 0, parts_of_group_ = 1;
    bool together_ = true;
};

class MergeStage : public Stage {
public:
    explicit MergeStage(const AttentionStage& attention) : attention_(attention) {}
    void compute(int64_t, Run&) override { attention_.merge(); }

private:
    const AttentionStage& attention_;
};

// Sizes of one dimension broadcast: their stride becomes 0.
Operand broadcast_mask(const Arguments& arguments, const Operand& mask, const int64_t (&sizes)[4]) {
    arguments.require(mask.ndim <= 4, "the mask must have at most four dimensions");
    arguments.require(mask.dtype == DType::boolean || mask.dtype == DType::f32, "the mask must be bool or float32");
    Operand result = mask;
    result.ndim = 4;
    for (int i = 0; i < 4; ++i) {
        const int at = i - (4 - mask.ndim);
        const int64_t size = at < 0 ? 1 : mask.sizes[at];
        arguments.require(size == 1 || size == sizes[i], "the mask does not match");
        result.sizes[i] = sizes[i];
        result.strides[i] = size == 1 ? 0 : mask.strides[at];
    }
    return result;
}

}  // namespace

void build_attention(const Arguments& arguments, Builder& builder) {
    const Operand &out = arguments.tensor(0), &q = arguments.tensor(1), &k = arguments.tensor(2),
                  &v = arguments.tensor(3);
    const Operand mask = arguments.optional(4), sinks = arguments.optional(5);
    for (const Operand* tensor : {&out, &q, &k, &v}) {
        arguments.require(tensor->ndim == 4, "the tensors must have four dimensions");
        arguments.require(is_float(tensor->dtype), "the tensors must be of floats");
    }
    Attention p{};
    p.batch = q.sizes[0], p.heads = q.sizes[1], p.queries = q.sizes[2], p.size = q.sizes[3];
    p.key_heads = k.sizes[1], p.keys = k.sizes[2], p.value_size = v.sizes[3];
    const auto has_shape = [&](const Operand& tensor, int64_t b, int64_t h, int64_t n, int64_t size) {
        const int64_t expected[] = {b, h, n, size};
        arguments.require(std::equal(expected, expected + 4, tensor.sizes), "the shapes do not match");
    };
    has_shape(k, p.batch, p.key_heads, p.keys, p.size);
    has_shape(v, p.batch, p.key_heads, p.keys, p.value_size);
    has_shape(out, p.batch, p.heads, p.queries, p.value_size);
    arguments.require(p.key_heads > 0 && p.heads % p.key_heads == 0, "heads must be a multiple of those of keys");
    arguments.require(p.size <= kMaxHeadSize && p.value_size <= kMaxHeadSize, "heads are too large");
    p.scale = static_cast<float>(arguments.number(0));
    p.softcap = static_cast<float>(arguments.number(1, 0.0));
    p.q = q, p.k = k, p.v = v, p.out = out;
    if (mask) p.mask = broadcast_mask(arguments, mask, {p.batch, p.heads, p.queries, p.keys});
    arguments.require(!sinks || (sinks.ndim == 1 && sinks.sizes[0] == p.heads && is_float(sinks.dtype)),
                      "the sinks do not match");
    p.sinks = sinks;
    if (out.numel() == 0) return;
    auto attention = std::make_unique<AttentionStage>(builder, p);
    auto merge = std::make_unique<MergeStage>(*attention);
    builder.add(std::move(attention));
    builder.add(std::move(merge));
}

}  // namespace torchgguf::plan
