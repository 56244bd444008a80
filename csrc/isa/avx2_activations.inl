// Activations as AVX2's dot products read them: integers of 16 bits with a scale for each 32. That keeps about five
// decimal digits, hundreds of times finer than the 8 bits that are usual.

constexpr int64_t kActivationBlock = 256;
constexpr int kScaled = 32;                 // activations that share a scale
constexpr float kActivationMax = 32639.0f;  // as on AVX-512: the same integers everywhere

// The order in which codes come out of their bytes, with 16 of them in a vector.
enum class Order {
    halves,  // a run of 32 in two vectors: 0-7 beside 16-23, 8-15 beside 24-31
    pairs,   // two runs of 32 in four vectors: 0-7 of both, 8-15 of both, and so on
};

// Where the 16 integers of a vector come from: two times eight, and the first of each.
struct Eights {
    int first, second;
};
constexpr Eights eights(Order order, int vector) {
    return order == Order::halves ? Eights{vector / 2 * 32 + vector % 2 * 8, vector / 2 * 32 + vector % 2 * 8 + 16}
                                  : Eights{vector / 4 * 64 + vector % 4 * 8, vector / 4 * 64 + vector % 4 * 8 + 32};
}

// Of eight consecutive sub-blocks, in vectors that hold a number for each: those of even places, then of odd ones. So
// the two halves of a vector hold what belongs to the two sub-blocks whose codes the halves of another one hold.
constexpr int kEvenOdd[8] = {0, 2, 4, 6, 1, 3, 5, 7};

template <int sub>
struct alignas(64) ActivationBlock {
    static constexpr int subs = kActivationBlock / sub;
    int16_t integers[kActivationBlock];
    float scale[subs], sum[subs];  // of each sub-block, sums times scales; every eight in the order kEvenOdd
};

template <int sub, Order order>
struct Activations {
    using Block = ActivationBlock<sub>;
    static int64_t blocks(int64_t k) { return (k + kActivationBlock - 1) / kActivationBlock; }
    static int64_t workspace_bytes(int64_t k, int64_t rows) { return rows * blocks(k) * int64_t(sizeof(Block)); }

    static void prepare(const LinearProblem& problem, uint8_t* workspace) {
        auto* block = reinterpret_cast<Block*>(workspace);
        for (int64_t r = 0; r < problem.rows; ++r) {
            const float* x = problem.x + r * problem.in_features;
            int64_t left = problem.in_features;
            for (; left >= kActivationBlock; left -= kActivationBlock, x += kActivationBlock) quantize(x, *block++);
            if (left == 0) continue;
            float padded[kActivationBlock] = {};
            __builtin_memcpy(padded, x, static_cast<size_t>(left) * sizeof(float));
            quantize(padded, *block++);
        }
    }

private:
    // A scale is NaN if any of its numbers is not finite.
    static void quantize(const float* x, Block& block) {
        __m256i by_eight[kActivationBlock / 8];
        float scale[kActivationBlock / kScaled];
        for (int i = 0; i < kActivationBlock / kScaled; ++i) {
            scale[i] = to_integers(x + kScaled * i, by_eight + kScaled / 8 * i);
        }
        for (int vector = 0; vector < kActivationBlock / 16; ++vector) {
            const Eights from = eights(order, vector);
            const __m256i both = _mm256_packs_epi32(by_eight[from.first / 8], by_eight[from.second / 8]);
            _mm256_store_si256(reinterpret_cast<__m256i*>(block.integers + 16 * vector),
                               _mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0)));
        }
        constexpr int eights_of_sub = sub / 8;
        for (int s = 0; s < Block::subs; s += 8) {
            __m256i total[8];
            for (int i = 0; i < 8; ++i) {
                const int at = s + kEvenOdd[i];
                block.scale[s + i] = scale[at * sub / kScaled];
                const __m256i* of = by_eight + at * eights_of_sub;
                total[i] = of[0];
                for (int j = 1; j < eights_of_sub; ++j) total[i] = _mm256_add_epi32(total[i], of[j]);
            }
            const __m256 sums = _mm256_cvtepi32_ps(sums_of_lanes(total));
            _mm256_storeu_ps(block.sum + s, _mm256_mul_ps(sums, _mm256_loadu_ps(block.scale + s)));
        }
    }

    // Returns the scale.
    static float to_integers(const float* x, __m256i* integers) {
        const __m256 sign = _mm256_set1_ps(-0.0f), zero = _mm256_setzero_ps();
        __m256 poison = zero, most = zero;
        for (int i = 0; i < kScaled; i += 8) {
            const __m256 v = _mm256_loadu_ps(x + i);
            poison = _mm256_fmadd_ps(v, zero, poison);
            most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v));
        }
        const Scaling scaling = SimdX86::scaling(max_of_lanes(most), kActivationMax);
        const __m256 factor = _mm256_set1_ps(scaling.there);
        for (int i = 0; i < kScaled; i += 8) {
            integers[i / 8] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
        }
        return scaling.back + sum_of_lanes(poison);
    }

    // Lane i of the result is the sum of v[i]'s lanes.
    static __m256i sums_of_lanes(const __m256i* v) {
        const auto four = [](const __m256i* w) {
            return _mm256_hadd_epi32(_mm256_hadd_epi32(w[0], w[1]), _mm256_hadd_epi32(w[2], w[3]));
        };
        const __m256i first = four(v), second = four(v + 4);
        return _mm256_add_epi32(_mm256_permute2x128_si256(first, second, 0x20),
                                _mm256_permute2x128_si256(first, second, 0x31));
    }
    static float max_of_lanes(__m256 v) {
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }
};
