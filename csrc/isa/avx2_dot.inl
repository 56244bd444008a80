// AVX2's dot products of packed weight rows with activation rows, in integers, 256 weights at a time.
//
// Every type here is a list of sub-blocks (16 or 32 weights) with weight = scale * code - offset. So
//     sum(weight * x) = sum over sub-blocks of scale * x_scale * sum(code * x_int) - offset * x_sum,
// where the sums over a sub-block are exact: codes widen to 16 bits, and vpmaddwd adds products in 32. A weight scale
// of ±inf gives NaN, where a row that is decoded first may give ±inf.
//
// `BlockDot<Type>` (avx2_dot_types.inl) unpacks a block, or eight blocks of 32, once for all activation rows.

constexpr int64_t kPrefetchDistance = 2048;  // bytes: what arrives while a load from memory is under way

template <class Body, int... i>
inline __attribute__((always_inline)) void unrolled(std::integer_sequence<int, i...>, Body body) {
    (body.template operator()<i>(), ...);
}

// Adds the products of the first `parts` parts of a block.
template <class Type, int R>
inline __attribute__((always_inline)) void add_block(const uint8_t* weight, int parts,
                                                     const typename BlockDot<Type>::Activation* const* x, int64_t at,
                                                     __m256* acc) {
    using D = BlockDot<Type>;
    constexpr int eights = D::Activation::subs / 8;
    const D block(weight);
    PairedScales scale[R][eights];
    for (int r = 0; r < R; ++r) {
        for (int i = 0; i < eights; ++i) {
            const auto& from = x[r][at];
            scale[r][i] = {_mm256_mul_ps(block.scale(i), _mm256_loadu_ps(from.scale + 8 * i))};
            if constexpr (D::has_offsets) {
                acc[r] = _mm256_fnmadd_ps(block.offset(i), _mm256_loadu_ps(from.sum + 8 * i), acc[r]);
            }
        }
    }
    unrolled(std::make_integer_sequence<int, D::parts>{}, [&]<int part>() __attribute__((always_inline)) {
        if (Type::block_size < kActivationBlock && part >= parts) return;
        const auto codes = block.template codes<part>();
        constexpr int vectors = sizeof(codes) / sizeof(__m256i);
        for (int r = 0; r < R; ++r) {
            const auto* q = reinterpret_cast<const __m256i*>(x[r][at].integers) + vectors * part;
            __m256i dot = _mm256_madd_epi16(codes.of[0], q[0]);
            for (int i = 1; i < vectors; ++i) dot = _mm256_add_epi32(dot, _mm256_madd_epi16(codes.of[i], q[i]));
            acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale[r][part / 4].template of<part % 4>(), acc[r]);
        }
    });
}

template <class Type, int R>
inline void dot_row(const uint8_t* weight, int64_t k, const typename BlockDot<Type>::Activation* const* x, float* y,
                    int64_t y_stride) {
    constexpr int64_t blocks = kActivationBlock / Type::block_size;  // that are taken at a time
    constexpr int64_t bytes = blocks * Type::type_size;
    __m256 acc[R];
    for (int r = 0; r < R; ++r) acc[r] = _mm256_setzero_ps();
    int64_t left = k / Type::block_size;
    uint8_t last[bytes];  // the few that are left, and zeros
    for (int64_t at = 0; left > 0; ++at, left -= blocks, weight += bytes) {
        for (int64_t line = 0; line < bytes; line += 64) SimdX86::prefetch(weight + kPrefetchDistance + line);
        if (blocks > 1 && left < blocks) {
            __builtin_memset(last, 0, sizeof last);
            __builtin_memcpy(last, weight, static_cast<size_t>(left * Type::type_size));
            weight = last;
        }
        const int64_t parts = (left * BlockDot<Type>::parts + blocks - 1) / blocks;
        add_block<Type, R>(weight, static_cast<int>(parts), x, at, acc);
    }
    for (int r = 0; r < R; ++r) y[r * y_stride] = sum_of_lanes(acc[r]);
}

template <class Type, int R>
void compute_rows(const LinearProblem& p, const uint8_t* workspace, int64_t first_row, int64_t begin, int64_t end) {
    using Activation = typename BlockDot<Type>::Activation;
    const int64_t blocks = BlockDot<Type>::Prepared::blocks(p.in_features);
    const Activation* x[R];
    for (int r = 0; r < R; ++r) x[r] = reinterpret_cast<const Activation*>(workspace) + (first_row + r) * blocks;
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
    for (; r + 8 <= p.rows; r += 8) compute_rows<Type, 8>(p, workspace, r, begin, end);
    for (; r + 4 <= p.rows; r += 4) compute_rows<Type, 4>(p, workspace, r, begin, end);
    for (; r + 2 <= p.rows; r += 2) compute_rows<Type, 2>(p, workspace, r, begin, end);
    for (; r < p.rows; ++r) compute_rows<Type, 1>(p, workspace, r, begin, end);
}

template <class Type>
    requires requires { BlockDot<Type>::parts; }
constexpr LinearKernel kLinear<Type> = {&BlockDot<Type>::Prepared::workspace_bytes, &BlockDot<Type>::Prepared::prepare,
                                        &compute<Type>};
