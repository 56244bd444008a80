// Products of vectors and of small matrices.

inline float dot(const float* a, const float* b, int64_t n) {
    F sums[2]{};
    int64_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
        sums[0] += load(a + i) * load(b + i);
        sums[1] += load(a + i + kLanes) * load(b + i + kLanes);
    }
    for (; i + kLanes <= n; i += kLanes) sums[0] += load(a + i) * load(b + i);
    float total = sum(sums[0] + sums[1]);
    for (; i < n; ++i) total += a[i] * b[i];
    return total;
}

// `memory`: two rows of a and two of out.
inline void matmul(const Matmul& p, int64_t first, int64_t last, float* memory) {
    float *row = memory, *other = row + p.depth, *result = other + p.depth, *b_buffer = result + p.columns;
    for (int64_t i = first; i < last; ++i) {
        const int64_t to = offset_of(p.loops, p.out, i, p.loops.count);
        const int64_t from = offset_of(p.loops, p.b, i, p.loops.count);
        const float* a = run_of(p.a, offset_of(p.loops, p.a, i, p.loops.count), p.a_step, p.depth, row);
        if (p.b_row == 1 && p.b_column != 1) {
            for (int64_t j = 0; j < p.columns; ++j) {
                result[j] = dot(a, run_of(p.b, from + j * p.b_column, 1, p.depth, other), p.depth);
            }
        } else {
            for (int64_t j = 0; j < p.columns; ++j) result[j] = 0.0f;
            for (int64_t k = 0; k < p.depth; ++k) {
                const float* b = run_of(p.b, from + k * p.b_row, p.b_column, p.columns, b_buffer);
                for (int64_t j = 0; j < p.columns; ++j) result[j] += a[k] * b[j];
            }
        }
        store_run(result, p.out, to, p.out_step, p.columns);
    }
}
