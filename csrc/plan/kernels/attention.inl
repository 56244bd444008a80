// Attention of one group of heads, which share keys, over a part of the keys; and the merge of parts.

constexpr int64_t kBlock = 16;  // keys whose rows are at hand at a time

// One query of the group.
struct AttentionRow {
    int64_t head, query;

    AttentionRow(const Attention& p, int64_t key_head, int64_t row)
        : head(key_head * (p.heads / p.key_heads) + row / p.queries), query(row % p.queries) {}
};

inline int64_t offset_in(const Operand& tensor, int64_t a, int64_t b, int64_t c) {
    return a * tensor.strides[0] + b * tensor.strides[1] + c * tensor.strides[2];
}

inline Stream stream_of(const Operand& tensor) { return {tensor.data, tensor.dtype, {}}; }

// Some rows of keys or values as whole vectors of floats: where they lie, or copies of them, padded with zeros.
struct BlockOfRows {
    alignas(64) float memory[kBlock * kMaxHeadSize];
    const float* rows[kBlock];

    void load(const Operand& tensor, int64_t batch, int64_t head, int64_t first, int64_t count) {
        const int64_t n = tensor.sizes[3], padded = round_up(n), stride = tensor.strides[3];
        const bool direct = tensor.dtype == DType::f32 && stride == 1 && padded == n;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t from = offset_in(tensor, batch, head, first + i);
            if (direct) {
                rows[i] = reinterpret_cast<const float*>(tensor.data) + from;
                continue;
            }
            float* row = memory + i * padded;
            load_run(stream_of(tensor), from, stride, n, row);
            for (int64_t j = n; j < padded; ++j) row[j] = 0.0f;
            rows[i] = row;
        }
    }
};

template <int lanes>
inline Floats<4> four_sums(Floats<lanes> v) {  // of every fourth lane
    if constexpr (lanes == 4) {
        return v;
    } else {
        Floats<lanes / 2> halves[2];
        __builtin_memcpy(halves, &v, sizeof v);
        return four_sums<lanes / 2>(halves[0] + halves[1]);
    }
}

// The sums of the lanes of some vectors: of four together, with half of the additions.
template <int count>
inline void sums_of(const F* vectors, float* sums) {
    if constexpr (count == 4) {
        Floats<4> v[4];
        for (int i = 0; i < 4; ++i) v[i] = four_sums<kLanes>(vectors[i]);
        const auto pairs = [](Floats<4> a, Floats<4> b) {
            return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
        };
        const Floats<4> first = pairs(v[0], v[1]), second = pairs(v[2], v[3]);
        const Floats<4> all =
            __builtin_shufflevector(first, second, 0, 2, 4, 6) + __builtin_shufflevector(first, second, 1, 3, 5, 7);
        __builtin_memcpy(sums, &all, sizeof all);
    } else {
        for (int i = 0; i < count; ++i) sums[i] = sum(vectors[i]);
    }
}

// Asks for rows that will be read: those of a cache come from main memory at each token.
inline void prefetch_rows(const Operand& tensor, int64_t batch, int64_t head, int64_t first, int64_t last) {
    constexpr int64_t line = 64;
    const int64_t bytes = tensor.sizes[3] * item_size(tensor.dtype);
    if (tensor.strides[3] != 1) return;
    for (int64_t i = first; i < last; ++i) {
        const uint8_t* row = tensor.data + offset_in(tensor, batch, head, i) * item_size(tensor.dtype);
        for (int64_t at = 0; at < bytes; at += line) __builtin_prefetch(row + at);
    }
}

constexpr int64_t kBlocksAhead = 2;

// Products of some queries with some keys.
template <int queries, int keys>
inline void score(const float* q, int64_t q_row, const float* const* k, int64_t n, float* scores, int64_t row) {
    F sums[queries][keys]{};
    for (int64_t i = 0; i < n; i += kLanes) {
        F key[keys];
        for (int b = 0; b < keys; ++b) key[b] = load(k[b] + i);
        for (int a = 0; a < queries; ++a) {
            const F query = load(q + a * q_row + i);
            for (int b = 0; b < keys; ++b) sums[a][b] += query * key[b];
        }
    }
    for (int a = 0; a < queries; ++a) sums_of<keys>(sums[a], scores + a * row);
}

template <int keys>
inline void score_all(int64_t queries, const float* q, int64_t q_row, const float* const* k, int64_t n, float* scores,
                      int64_t row) {
    int64_t a = 0;
    for (; a + 2 <= queries; a += 2) score<2, keys>(q + a * q_row, q_row, k, n, scores + a * row, row);
    if (a < queries) score<1, keys>(q + a * q_row, q_row, k, n, scores + a * row, row);
}

// Adds values, weighed, to some columns of the results of some queries.
template <int queries, int vectors>
inline void add_values(const float* weights, int64_t row, const float* const* v, int64_t count, int64_t column,
                       float* values, int64_t values_row) {
    F sums[queries][vectors];
    for (int a = 0; a < queries; ++a) {
        for (int c = 0; c < vectors; ++c) sums[a][c] = load(values + a * values_row + column + c * kLanes);
    }
    for (int64_t j = 0; j < count; ++j) {
        F value[vectors];
        for (int c = 0; c < vectors; ++c) value[c] = load(v[j] + column + c * kLanes);
        for (int a = 0; a < queries; ++a) {
            for (int c = 0; c < vectors; ++c) sums[a][c] += weights[a * row + j] * value[c];
        }
    }
    for (int a = 0; a < queries; ++a) {
        for (int c = 0; c < vectors; ++c) store(values + a * values_row + column + c * kLanes, sums[a][c]);
    }
}

template <int queries>
inline void add_all_values(const float* weights, int64_t row, const float* const* v, int64_t count, int64_t n,
                           float* values, int64_t values_row) {
    int64_t column = 0;
    for (; column + 4 * kLanes <= n; column += 4 * kLanes) {
        add_values<queries, 4>(weights, row, v, count, column, values, values_row);
    }
    for (; column < n; column += kLanes) add_values<queries, 1>(weights, row, v, count, column, values, values_row);
}

// What is left of the scores of one query: softcap and mask; then their exponentials.
inline void weigh(const Attention& p, const AttentionPart& part, int64_t row) {
    const int64_t count = part.last - part.first;
    const AttentionRow at(p, part.key_head, row);
    float* scores = part.scores + row * count;
    if (p.softcap != 0.0f) {
        const auto capped = [&](F x) { return p.softcap * tanh(x / p.softcap); };
        int64_t j = 0;
        for (; j + kLanes <= count; j += kLanes) store(scores + j, capped(load(scores + j)));
        if (j < count) store_some(scores + j, capped(load_some(scores + j, count - j)), count - j);
    }
    if (p.mask) {
        const int64_t step = p.mask.strides[3];
        const int64_t from = offset_in(p.mask, part.batch, at.head, at.query) + part.first * step;
        if (p.mask.dtype == DType::boolean) {
            const uint8_t* allowed = p.mask.data + from;
            if (step == 1) {
                for (int64_t j = 0; j < count; ++j) scores[j] = allowed[j] ? scores[j] : -kInfinity;
            } else {
                for (int64_t j = 0; j < count; ++j) scores[j] = allowed[j * step] ? scores[j] : -kInfinity;
            }
        } else {
            const auto* added = reinterpret_cast<const float*>(p.mask.data) + from;
            for (int64_t j = 0; j < count; ++j) scores[j] += added[j * step];
        }
    }
    const float most = count ? greatest(scores, count) : -kInfinity;
    part.maxima[row] = most;
    if (most == -kInfinity) {  // none is allowed
        for (int64_t j = 0; j < count; ++j) scores[j] = 0.0f;
    }
    part.sums[row] = most == -kInfinity ? 0.0f : exponentials(scores, count, most);
}

inline void attend(const Attention& p, const AttentionPart& part) {
    const int64_t count = part.last - part.first, rows = p.heads / p.key_heads * p.queries;
    const int64_t size = round_up(p.size), value_size = round_up(p.value_size);
    for (int64_t row = 0; row < rows; ++row) {
        const AttentionRow at(p, part.key_head, row);
        float* q = part.queries + row * size;
        load_run(stream_of(p.q), offset_in(p.q, part.batch, at.head, at.query), p.q.strides[3], p.size, q);
        for (int64_t i = 0; i < p.size; ++i) q[i] *= p.scale;
        for (int64_t i = p.size; i < size; ++i) q[i] = 0.0f;
    }
    BlockOfRows block;
    const auto prefetch = [&](const Operand& tensor, int64_t first) {
        const int64_t last = first + kBlock < count ? first + kBlock : count;
        prefetch_rows(tensor, part.batch, part.key_head, part.first + first, part.first + last);
    };
    for (int64_t i = 0; i < kBlocksAhead; ++i) prefetch(p.k, i * kBlock);
    for (int64_t first = 0; first < count; first += kBlock) {
        const int64_t n = count - first < kBlock ? count - first : kBlock;
        prefetch(p.k, first + kBlocksAhead * kBlock);
        block.load(p.k, part.batch, part.key_head, part.first + first, n);
        int64_t j = 0;
        for (; j + 4 <= n; j += 4) {
            score_all<4>(rows, part.queries, size, block.rows + j, size, part.scores + first + j, count);
        }
        for (; j < n; ++j) score_all<1>(rows, part.queries, size, block.rows + j, size, part.scores + first + j, count);
    }
    for (int64_t i = 0; i < kBlocksAhead; ++i) prefetch(p.v, i * kBlock);
    for (int64_t row = 0; row < rows; ++row) weigh(p, part, row);
    for (int64_t i = 0; i < rows * value_size; ++i) part.values[i] = 0.0f;
    for (int64_t first = 0; first < count; first += kBlock) {
        const int64_t n = count - first < kBlock ? count - first : kBlock;
        prefetch(p.v, first + kBlocksAhead * kBlock);
        block.load(p.v, part.batch, part.key_head, part.first + first, n);
        const float* weights = part.scores + first;
        int64_t row = 0;
        for (; row + 2 <= rows; row += 2) {
            add_all_values<2>(weights + row * count, count, block.rows, n, value_size, part.values + row * value_size,
                              value_size);
        }
        if (row < rows) {
            add_all_values<1>(weights + row * count, count, block.rows, n, value_size, part.values + row * value_size,
                              value_size);
        }
    }
}

// Writes the result of all parts of one group of heads.
inline void merge(const Attention& p, const AttentionPart* parts, int64_t count) {
    const int64_t rows = p.heads / p.key_heads * p.queries, value_size = round_up(p.value_size);
    alignas(64) float values[kMaxHeadSize];
    for (int64_t row = 0; row < rows; ++row) {
        const AttentionRow at(p, parts[0].key_head, row);
        float most = -kInfinity;
        for (int64_t i = 0; i < count; ++i) most = parts[i].maxima[row] > most ? parts[i].maxima[row] : most;
        float sink = 0.0f;
        if (p.sinks) {
            load_run(stream_of(p.sinks), at.head * p.sinks.strides[0], 1, 1, &sink);
            most = sink > most ? sink : most;
        }
        const float base = most == -kInfinity ? 0.0f : most;
        float total = p.sinks ? __builtin_expf(sink - base) : 0.0f;
        for (int64_t i = 0; i < count; ++i) {
            const float factor = __builtin_expf(parts[i].maxima[row] - base);
            total += factor * parts[i].sums[row];
            const float* from = parts[i].values + row * value_size;
            for (int64_t j = 0; j < value_size; ++j) values[j] = (i ? values[j] : 0.0f) + factor * from[j];
        }
        scale_row(values, p.value_size, total > 0.0f ? 1.0f / total : 0.0f);
        store_run(values, stream_of(p.out), offset_in(p.out, parts[0].batch, at.head, at.query), p.out.strides[3],
                  p.value_size);
    }
}
