// Dot products for the types without a kernel on integers: a segment of a packed row is decoded to FP32, then
// multiplied with every activation row. Plain loops; each instruction set's file compiles them for itself.

constexpr int64_t kDecodedSegment = 1024;  // weights; a multiple of every block size

inline float dot_floats(const float* a, const float* b, int64_t n) {
    constexpr int lanes = 32;
    float acc[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int j = 0; j < lanes; ++j) acc[j] += a[i + j] * b[i + j];
    }
    for (int j = 0; i < n; ++i, ++j) acc[j] += a[i] * b[i];
    float sum = 0.0f;
    for (float lane : acc) sum += lane;
    return sum;
}

inline void compute_decoded(const LinearProblem& p, const uint8_t*, int64_t begin, int64_t end) {
    const auto decode = kDecoders.by_id[p.type].to_f32;
    const BlockSize block = kBlockSizes.by_id[p.type];
    const int64_t segment_bytes = kDecodedSegment / block.weights * block.bytes;
    alignas(64) float decoded[kDecodedSegment];
    for (int64_t o = begin; o < end; ++o) {
        for (int64_t r = 0; r < p.rows; ++r) p.y[r * p.out_features + o] = p.bias ? p.bias[o] : 0.0f;
        const uint8_t* packed = p.weight + o * p.row_bytes;
        for (int64_t i = 0; i < p.in_features; i += kDecodedSegment, packed += segment_bytes) {
            const int64_t n = p.in_features - i < kDecodedSegment ? p.in_features - i : kDecodedSegment;
            decode(packed, decoded, n);
            for (int64_t r = 0; r < p.rows; ++r) {
                p.y[r * p.out_features + o] += dot_floats(decoded, p.x + r * p.in_features + i, n);
            }
        }
    }
}

template <class Type>
constexpr LinearKernel kLinear = {[](int64_t, int64_t) -> int64_t { return 0; }, [](const LinearProblem&, uint8_t*) {},
                                  &compute_decoded};

struct LinearTable {
    LinearKernel by_id[kTableSize] = {};
    template <class... Types>
    consteval explicit LinearTable(TypeList<Types...>) {
        ((by_id[Types::id] = kLinear<Types>), ...);
    }
};
