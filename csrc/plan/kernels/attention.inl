// Attention of one group of heads, which share keys, over a part of the keys; and the merge of parts.

// A row of `n` numbers of a tensor as floats.
inline const float* row_of(const Operand& tensor, int64_t offset, int64_t n, float* buffer) {
    const Stream stream{tensor.data, tensor.dtype, {}};
    return run_of(stream, offset, tensor.stride(-1), n, buffer);
}

constexpr int64_t kMaxHeadSize = 1024;

struct AttentionRow {
    int64_t head, query;

    AttentionRow(const Attention& p, int64_t key_head, int64_t row)
        : head(key_head * (p.heads / p.key_heads) + row / p.queries), query(row % p.queries) {}
};

inline int64_t offset_in(const Operand& tensor, int64_t a, int64_t b, int64_t c) {
    return a * tensor.strides[0] + b * tensor.strides[1] + c * tensor.strides[2];
}

inline void attend(const Attention& p, const AttentionPart& part) {
    const int64_t count = part.last - part.first, rows = p.heads / p.key_heads * p.queries;
    alignas(64) float query[kMaxHeadSize], key[kMaxHeadSize];
    for (int64_t row = 0; row < rows; ++row) {
        const AttentionRow at(p, part.key_head, row);
        float* scores = part.scores + row * count;
        const float* q = row_of(p.q, offset_in(p.q, part.batch, at.head, at.query), p.size, query);
        for (int64_t j = 0; j < count; ++j) {
            const int64_t from = offset_in(p.k, part.batch, part.key_head, part.first + j);
            scores[j] = p.scale * dot(q, row_of(p.k, from, p.size, key), p.size);
        }
        if (p.softcap != 0.0f) {
            for (int64_t j = 0; j < count; ++j) scores[j] = p.softcap * __builtin_tanhf(scores[j] / p.softcap);
        }
        if (p.mask) {
            const int64_t from = offset_in(p.mask, part.batch, at.head, at.query), step = p.mask.strides[3];
            for (int64_t j = 0; j < count; ++j) {
                const int64_t place = from + (part.first + j) * step;
                if (p.mask.dtype == DType::boolean) {
                    if (!p.mask.data[place]) scores[j] = -kInfinity;
                } else {
                    scores[j] += element<float>(p.mask.data, place);
                }
            }
        }
        const float most = greatest(scores, count);
        const bool none = most == -kInfinity;
        part.maxima[row] = most;
        if (none) {
            for (int64_t j = 0; j < count; ++j) scores[j] = 0.0f;
        }
        part.sums[row] = none ? 0.0f : exponentials(scores, count, most);
    }
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t i = 0; i < p.value_size; ++i) part.values[row * p.value_size + i] = 0.0f;
    }
    for (int64_t j = 0; j < count; ++j) {
        const int64_t from = offset_in(p.v, part.batch, part.key_head, part.first + j);
        const float* v = row_of(p.v, from, p.value_size, key);
        for (int64_t row = 0; row < rows; ++row) {
            const float weight = part.scores[row * count + j];
            float* values = part.values + row * p.value_size;
            for (int64_t i = 0; i < p.value_size; ++i) values[i] += weight * v[i];
        }
    }
}

// Writes the result of all parts of one group of heads.
inline void merge(const Attention& p, const AttentionPart* parts, int64_t count) {
    const int64_t rows = p.heads / p.key_heads * p.queries;
    alignas(64) float values[kMaxHeadSize];
    for (int64_t row = 0; row < rows; ++row) {
        const AttentionRow at(p, parts[0].key_head, row);
        float most = -kInfinity;
        for (int64_t i = 0; i < count; ++i) most = parts[i].maxima[row] > most ? parts[i].maxima[row] : most;
        float sink = 0.0f;
        if (p.sinks) {
            const Stream stream{p.sinks.data, p.sinks.dtype, {}};
            load_run(stream, at.head * p.sinks.strides[0], 1, 1, &sink);
            most = sink > most ? sink : most;
        }
        const float base = most == -kInfinity ? 0.0f : most;
        float total = p.sinks ? __builtin_expf(sink - base) : 0.0f;
        for (int64_t j = 0; j < p.value_size; ++j) values[j] = 0.0f;
        for (int64_t i = 0; i < count; ++i) {
            const float factor = __builtin_expf(parts[i].maxima[row] - base);
            total += factor * parts[i].sums[row];
            const float* from = parts[i].values + row * p.value_size;
            for (int64_t j = 0; j < p.value_size; ++j) values[j] += factor * from[j];
        }
        scale_row(values, p.value_size, total > 0.0f ? 1.0f / total : 0.0f);
        const Stream out{p.out.data, p.out.dtype, {}};
        store_run(values, out, offset_in(p.out, parts[0].batch, at.head, at.query), p.out.strides[3], p.value_size);
    }
}
