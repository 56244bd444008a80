// Dot products of packed weight rows with activation rows, in integers.
//
// Every type here is a list of sub-blocks (16 or 32 weights) with weight = scale * q + offset, q an unsigned
// byte. Activations become 16-bit integers with one scale for each 32, so that
//     sum(weight * x) = sum over sub-blocks of scale * x_scale * sum(q * x_int) + offset * x_sum,
// where the inner sum is exact. Sixteen bits keep activations to about five decimal digits, hundreds of times
// finer than the 8 bits that are usual. A weight scale of ±inf gives NaN (infinity less infinity, through kZero),
// where a row that is decoded first may give ±inf.
//
// Included by the files of instruction sets that describe themselves as a `Simd` (AVX-512), inside their unnamed
// namespaces, after it and the types. isa/avx2_dot.inl is AVX2's own.

constexpr int64_t kSegment = 1024;           // weights of a row whose scales are unpacked at a time: they stay in L1
constexpr int64_t kPrefetchDistance = 2048;  // bytes: what arrives while a load from memory is under way
constexpr int64_t kActivationBlock = 32;
constexpr float kActivationMax = 32639.0f;  // 127 * 256 + 127: splits into two signed bytes

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// One activation row in the workspace: integers in Simd's own order, then a scale and a sum for each sub-block.
struct ActivationRow {
    const int8_t* integers;
    const float* scale;
    const float* sum;
};

template <int sub>
struct Activations {
    static int64_t padded(int64_t k) { return round_up(k, 16 * 32); }
    static int64_t subs(int64_t k) { return padded(k) / sub; }
    static int64_t row_bytes(int64_t k) { return 2 * padded(k) + 2 * subs(k) * int64_t(sizeof(float)); }
    static int64_t workspace_bytes(int64_t k, int64_t rows) { return rows * row_bytes(k); }

    static ActivationRow row(const uint8_t* workspace, int64_t k, int64_t r) {
        const uint8_t* base = workspace + r * row_bytes(k);
        const auto* scale = reinterpret_cast<const float*>(base + 2 * padded(k));
        return {reinterpret_cast<const int8_t*>(base), scale, scale + subs(k)};
    }

    static void prepare(const LinearProblem& problem, uint8_t* workspace) {
        const int64_t k = problem.in_features;
        __builtin_memset(workspace, 0, workspace_bytes(k, problem.rows));
        for (int64_t r = 0; r < problem.rows; ++r) {
            const ActivationRow row = Activations::row(workspace, k, r);
            auto* scale = const_cast<float*>(row.scale);
            auto* sum = const_cast<float*>(row.sum);
            for (int64_t i = 0; i < k; i += kActivationBlock) {
                alignas(64) int16_t q[kActivationBlock];
                const float x_scale = Simd::quantize32(problem.x + r * k + i, kActivationMax, q);
                Simd::store_activations(const_cast<int8_t*>(row.integers), i, q);
                for (int64_t s = 0; s < kActivationBlock / sub; ++s) {
                    int32_t total = 0;
                    for (int j = 0; j < sub; ++j) total += q[s * sub + j];
                    scale[i / sub + s] = x_scale;
                    sum[i / sub + s] = x_scale * static_cast<float>(total);
                }
            }
        }
    }
};

template <class Type, int R>
inline void dot_row(const uint8_t* weight, int64_t k, const ActivationRow* x, float* y, int64_t y_stride) {
    using F = Simd::Floats;
    using D = Dot<Type>;
    constexpr int sub = D::sub;
    constexpr int64_t width = Simd::kWidth;
    constexpr int64_t subs_of_width = width / sub;
    F acc[R], offset_acc[R];
    for (int r = 0; r < R; ++r) acc[r] = offset_acc[r] = Simd::zero();

    for (int64_t start = 0; start < k; start += kSegment) {
        const int64_t n = k - start < kSegment ? k - start : kSegment;
        const int64_t subs = n / sub, padded_subs = round_up(subs, 16);
        alignas(64) float scale[kSegment / sub + 16];
        alignas(64) float offset[kSegment / sub + 16];
        alignas(64) float folded[R][kSegment / sub + 16];
        for (int64_t s = subs / 16 * 16; s < padded_subs; s += Simd::kFloats) {  // what lies beyond the row counts 0
            Simd::store(scale + s, Simd::zero());
            Simd::store(offset + s, Simd::zero());
        }
        D::load_scales(weight, n / D::block_size, scale, offset);
        for (int64_t s = 0; s < padded_subs; s += Simd::kFloats) {
            const F weight_scale = Simd::load(scale + s);
            const F weight_offset = D::kHasOffsets ? Simd::load(offset + s) : weight_scale;
            for (int r = 0; r < R; ++r) {
                const int64_t at = start / sub + s;
                Simd::store(folded[r] + s, Simd::mul(weight_scale, Simd::load(x[r].scale + at)));
                offset_acc[r] = Simd::fma(weight_offset, Simd::load(x[r].sum + at), offset_acc[r]);
            }
        }
        const auto accumulate = [&](Simd::Bytes q, int64_t at) {
            for (int r = 0; r < R; ++r) {
                const F dot = Simd::dot(q, x[r].integers + 2 * (start + at));
                acc[r] = Simd::fma(dot, Simd::template expand<sub>(folded[r] + at / width * subs_of_width), acc[r]);
            }
        };
        if constexpr (D::block_size == 32) {
            int64_t at = 0;
            const uint8_t* blocks = weight;
            for (; at + width <= n; at += width, blocks += width / 32 * D::type_size) {
                Simd::prefetch(blocks + kPrefetchDistance);
                accumulate(D::unpack(blocks, D::type_size), at);
            }
            // A last block alone is read twice: its twin meets activations and a scale of zero.
            if (at < n) accumulate(D::unpack(blocks, 0), at);
        } else {
            const uint8_t* block = weight;
            for (int64_t at = 0; at < n; at += D::block_size, block += D::type_size) {
                for (int line = 0; line < D::type_size; line += 64) Simd::prefetch(block + kPrefetchDistance + line);
                [&]<int... chunk>(std::integer_sequence<int, chunk...>) {
                    (accumulate(D::template unpack<chunk*(width / 32)>(block), at + chunk * width), ...);
                }(std::make_integer_sequence<int, D::block_size / width>{});
            }
        }
        weight += n / D::block_size * D::type_size;
    }
    const F offset_factor = Simd::set(D::kHasOffsets ? 1.0f : -D::kZero);
    for (int r = 0; r < R; ++r) y[r * y_stride] = Simd::sum(Simd::fma(offset_acc[r], offset_factor, acc[r]));
}

template <class Type, int R>
void compute_rows(const LinearProblem& p, const uint8_t* workspace, int64_t first_row, int64_t begin, int64_t end) {
    ActivationRow x[R];
    for (int r = 0; r < R; ++r) x[r] = Activations<Dot<Type>::sub>::row(workspace, p.in_features, first_row + r);
    for (int64_t o = begin; o < end; ++o) {
        float* y = p.y + first_row * p.out_features + o;
        dot_row<Type, R>(p.weight + o * p.row_bytes, p.in_features, x, y, p.out_features);
        if (p.bias) {
            for (int r = 0; r < R; ++r) y[r * p.out_features] += p.bias[o];
        }
    }
}

template <class Type>
void compute(const LinearProblem& p, const uint8_t* workspace, int64_t begin, int64_t end) {
    int64_t r = 0;
    for (; r + 4 <= p.rows; r += 4) compute_rows<Type, 4>(p, workspace, r, begin, end);
    if (r + 2 <= p.rows) compute_rows<Type, 2>(p, workspace, r, begin, end), r += 2;
    if (r < p.rows) compute_rows<Type, 1>(p, workspace, r, begin, end);
}

template <class Type>
    requires requires { Dot<Type>::sub; }
constexpr LinearKernel kLinear<Type> = {&Activations<Dot<Type>::sub>::workspace_bytes,
                                        &Activations<Dot<Type>::sub>::prepare, &compute<Type>};
