// Reductions, softmax and normalizations: rows whose elements depend on each other.

template <class T>
inline T reduce_run(Reduction reduction, T total, const T* run, int64_t n) {
    const auto fold = [&](auto step) {
        for (int64_t i = 0; i < n; ++i) total = step(total, run[i]);
        return total;
    };
    switch (reduction) {
        case Reduction::sum:
        case Reduction::mean:
            return fold([](T a, T b) { return a + b; });
        case Reduction::max:
            return fold([](T a, T b) { return b > a || b != b ? b : a; });
        case Reduction::min:
            return fold([](T a, T b) { return b < a || b != b ? b : a; });
        case Reduction::prod:
            return fold([](T a, T b) { return a * b; });
        case Reduction::any:
            return fold([](T a, T b) { return T(a != T{} || b != T{}); });
        case Reduction::all:
            return fold([](T a, T b) { return T(a != T{} && b != T{}); });
    }
    __builtin_unreachable();
}

inline float sum_of_run(const float* run, int64_t n) {
    F sums[4]{};
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        for (int j = 0; j < 4; ++j) sums[j] += load(run + i + j * kLanes);
    }
    for (; i + kLanes <= n; i += kLanes) sums[0] += load(run + i);
    if (i < n) sums[1] += load_some(run + i, n - i);
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
inline void reduce_to(const Reduce& p, int64_t first, int64_t last) {
    const int inner = p.reduced.count - 1;
    const int64_t length = p.reduced.inner(), outer = p.reduced.outer();
    const bool sums = p.reduction == Reduction::sum || p.reduction == Reduction::mean;
    alignas(64) T buffer[kRun];
    for (int64_t row = first; row < last; ++row) {
        const int64_t from = offset_of(p.kept, p.in, row, p.kept.count);
        // Extremes begin with the first element.
        T total = p.reduction == Reduction::prod || p.reduction == Reduction::all ? T(1) : T(0);
        if (p.reduction == Reduction::max || p.reduction == Reduction::min) load_run(p.in, from, 1, 1, &total);
        for (int64_t i = 0; i < outer; ++i) {
            const int64_t at = from + offset_of(p.reduced, p.in_reduced, i, inner);
            const int64_t stride = p.in_reduced.strides[inner];
            for (int64_t begin = 0; begin < length; begin += kRun) {
                const int64_t n = length - begin < kRun ? length - begin : kRun;
                const T* run = run_of(p.in, at + begin * stride, stride, n, buffer);
                if constexpr (sizeof(T) == sizeof(float)) {
                    if (sums) {
                        total += sum_of_run(run, n);
                        continue;
                    }
                }
                total = reduce_run(p.reduction, total, run, n);
            }
        }
        if constexpr (sizeof(T) == sizeof(float)) {
            if (p.reduction == Reduction::mean) total /= static_cast<float>(outer * length);
        }
        store_run(&total, p.out, offset_of(p.kept, p.out, row, p.kept.count), 1, 1);
    }
}

inline void reduce(const Reduce& p, int64_t first, int64_t last) {
    p.integers ? reduce_to<int64_t>(p, first, last) : reduce_to<float>(p, first, last);
}

inline float greatest(const float* row, int64_t n) {
    if (n < kLanes) {
        float most = row[0];
        for (int64_t i = 1; i < n; ++i) most = row[i] > most || row[i] != row[i] ? row[i] : most;
        return most;
    }
    F most = load(row);
    for (int64_t i = kLanes; i + kLanes <= n; i += kLanes) most = maximum(load(row + i), most);
    most = maximum(load(row + n - kLanes), most);  // some twice
    float found = most[0];
    for (int i = 1; i < kLanes; ++i) found = most[i] > found || most[i] != most[i] ? most[i] : found;
    return found;
}

// row[i] <- e^(row[i] - most); returns their sum.
inline float exponentials(float* row, int64_t n, float most) {
    F total{};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        const F e = exp(load(row + i) - most);
        store(row + i, e);
        total += e;
    }
    float sum_of_all = sum(total);
    if (i < n) {
        const F e = exp(load_some(row + i, n - i) - most);
        store_some(row + i, e, n - i);
        for (int64_t j = 0; j < n - i; ++j) sum_of_all += e[j];
    }
    return sum_of_all;
}

inline void scale_row(float* row, int64_t n, float factor) {
    for (int64_t i = 0; i < n; ++i) row[i] *= factor;
}

constexpr float kInfinity = __builtin_inff();

// `memory`: a row of floats.
inline void softmax(const Softmax& p, int64_t first, int64_t last, float* memory) {
    const int inner = p.loops.count - 1;
    const int64_t n = p.loops.inner();
    const bool direct = p.out.dtype == DType::f32 && p.out.strides[inner] == 1;
    for (int64_t i = first; i < last; ++i) {
        const int64_t to = offset_of(p.loops, p.out, i, inner);
        float* row = direct ? reinterpret_cast<float*>(p.out.data) + to : memory;
        load_run(p.in, offset_of(p.loops, p.in, i, inner), p.in.strides[inner], n, row);
        const float most = greatest(row, n);
        if (p.logarithm) {
            float total = 0.0f;
            for (int64_t begin = 0; begin < n; begin += kRun) {
                alignas(64) float run[kRun];
                const int64_t count = n - begin < kRun ? n - begin : kRun;
                __builtin_memcpy(run, row + begin, count * sizeof(float));
                total += exponentials(run, count, most);
            }
            const float logarithm = most + __builtin_logf(total);
            for (int64_t j = 0; j < n; ++j) row[j] -= logarithm;
        } else {
            scale_row(row, n, 1.0f / exponentials(row, n, most));
        }
        if (!direct) store_run(row, p.out, to, p.out.strides[inner], n);
    }
}

inline float square_sum(const float* row, int64_t n, float mean) {
    F sums[4]{};
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        for (int j = 0; j < 4; ++j) {
            const F d = load(row + i + j * kLanes) - mean;
            sums[j] += d * d;
        }
    }
    for (; i + kLanes <= n; i += kLanes) {
        const F d = load(row + i) - mean;
        sums[0] += d * d;
    }
    float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < n; ++i) total += (row[i] - mean) * (row[i] - mean);
    return total;
}

// `memory`: a row of floats.
inline void normalize(const Normalization& p, int64_t first, int64_t last, float* memory) {
    const int inner = p.loops.count - 1;
    const int64_t n = p.loops.inner();
    const auto stride = [inner](const Stream& stream) { return stream.strides[inner]; };
    alignas(64) float buffers[2][kRun];
    for (int64_t i = first; i < last; ++i) {
        const auto offset = [&](const Stream& stream) { return offset_of(p.loops, stream, i, inner); };
        const float* x = run_of(p.x, offset(p.x), stride(p.x), n, memory);
        if (p.added.data) {
            const int64_t from = offset(p.added), to = offset(p.sum);
            for (int64_t begin = 0; begin < n; begin += kRun) {
                const int64_t count = n - begin < kRun ? n - begin : kRun;
                const float* added =
                    run_of(p.added, from + begin * stride(p.added), stride(p.added), count, buffers[0]);
                for (int64_t j = 0; j < count; ++j) memory[begin + j] = x[begin + j] + added[j];
            }
            store_run(memory, p.sum, to, stride(p.sum), n);
            x = memory;
        }
        const float mean = p.centered ? sum_of_run(x, n) / static_cast<float>(n) : 0.0f;
        const float factor = 1.0f / __builtin_sqrtf(square_sum(x, n, mean) / static_cast<float>(n) + p.eps);
        const int64_t to = offset(p.out);
        const bool direct = p.out.dtype == DType::f32 && stride(p.out) == 1;
        for (int64_t begin = 0; begin < n; begin += kRun) {
            const int64_t count = n - begin < kRun ? n - begin : kRun;
            float* out = direct ? reinterpret_cast<float*>(p.out.data) + to + begin : memory + begin;
            for (int64_t j = 0; j < count; ++j) out[j] = (x[begin + j] - mean) * factor;
            if (p.weight.data) {
                const float* w = run_of(p.weight, begin * stride(p.weight), stride(p.weight), count, buffers[0]);
                for (int64_t j = 0; j < count; ++j) out[j] *= w[j];
            }
            if (p.bias.data) {
                const float* b = run_of(p.bias, begin * stride(p.bias), stride(p.bias), count, buffers[1]);
                for (int64_t j = 0; j < count; ++j) out[j] += b[j];
            }
            if (!direct) store_run(out, p.out, to + begin * stride(p.out), stride(p.out), count);
        }
    }
}

inline void rope(const Rope& p, int64_t first, int64_t last, float*) {
    const int inner = p.loops.count - 1;
    const int64_t n = p.loops.inner(), half = p.rotated / 2;
    alignas(64) float x[kMaxHeadSize], out[kMaxHeadSize], cosines[kMaxHeadSize], sines[kMaxHeadSize];
    for (int64_t i = first; i < last; ++i) {
        const auto offset = [&](const Stream& stream) { return offset_of(p.loops, stream, i, inner); };
        const int64_t from = offset(p.x), stride = p.x.strides[inner];
        if (p.neighbours) {
            load_run(p.x, from, 2 * stride, half, x);
            load_run(p.x, from + stride, 2 * stride, half, x + half);
        } else {
            load_run(p.x, from, stride, p.rotated, x);
        }
        load_run(p.x, from + p.rotated * stride, stride, n - p.rotated, out + p.rotated);
        const float* c = run_of(p.cos, offset(p.cos), p.cos.strides[inner], p.rotated, cosines);
        const float* s = run_of(p.sin, offset(p.sin), p.sin.strides[inner], p.rotated, sines);
        for (int64_t j = 0; j < half; ++j) out[j] = x[j] * c[j] + x[j + half] * s[j];
        for (int64_t j = half; j < p.rotated; ++j) out[j] = x[j] * c[j] + x[j - half] * s[j];
        store_run(out, p.out, offset(p.out), p.out.strides[inner], n);
    }
}
