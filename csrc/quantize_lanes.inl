// Numbers of kLanes blocks side by side, in the compiler's own vectors: lane b is what belongs to block b.
// Nothing ever crosses lanes, so how many there are changes no result.

using F = float __attribute__((vector_size(4 * kLanes)));
using I = int32_t __attribute__((vector_size(4 * kLanes)));

inline F all(float x) { return F{} + x; }
inline F choose(I where, F a, F b) { return where ? a : b; }
inline F min(F a, F b) { return a < b ? a : b; }
inline F max(F a, F b) { return a > b ? a : b; }
inline F clamp(F x, float low, float high) { return min(max(x, all(low)), all(high)); }
inline F magnitude(F x) { return (F)((I)x & 0x7fffffff); }
inline F to_float(I x) { return __builtin_convertvector(x, F); }
inline I to_int(F x) { return __builtin_convertvector(x, I); }

// To the nearest integer, halves to the even one; |x| < 2^22.
inline F round(F x) {
    constexpr float shift = 0x1.8p23f;
    return (x + shift) - shift;
}

// table[index] in each lane; every index is below 16.
inline F look_up(const float* table, I index) {
#if defined(__AVX512F__)
    return (F)_mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
#elif defined(__AVX2__)
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)index);
    return choose(index > 7, (F)high, (F)low);
#else
    F out;
    for (int b = 0; b < kLanes; ++b) out[b] = table[index[b]];
    return out;
#endif
}

constexpr float kTiny = 0x1p-40f;  // see fitting.py

inline F inverse(F x) { return choose(magnitude(x) < kTiny * kTiny, F{}, 1.0f / x); }
inline F quotient(F a, F b) { return choose(b > 0.0f, a / b, F{}); }

template <class To, class From>
inline To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    __builtin_memcpy(&to, &value, sizeof to);
    return to;
}

// FP16 bits, to nearest even; |x| <= 65504.
inline uint16_t half_bits(float x) {
    const auto bits = bits_as<uint32_t>(x);
    const uint32_t sign = bits >> 16 & 0x8000u, positive = bits & 0x7fffffffu;
    if (positive < 0x38800000u) {  // subnormal: adding a half makes the unit of the last place 2^-24
        return static_cast<uint16_t>(sign | (bits_as<uint32_t>(bits_as<float>(positive) + 0.5f) & 0x7ffu));
    }
    const uint32_t rounded = positive + 0xfffu + (positive >> 13 & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline float half_value(uint16_t half) {
    const uint32_t positive = half & 0x7fffu, sign = (half & 0x8000u) << 16;
    const float subnormal = static_cast<float>(static_cast<int>(positive)) * 0x1p-24f;
    const uint32_t bits = positive < 0x400u ? bits_as<uint32_t>(subnormal) : (positive << 13) + (112u << 23);
    return bits_as<float>(sign | bits);
}

constexpr float kLargestHalf = 65504.0f, kSmallestHalf = 0x1p-24f;

// Rounded to FP16, but finite, and not to zero.
inline F stored_half(F x) {
    const F positive = clamp(magnitude(x), kSmallestHalf, kLargestHalf);
    F out{};
    for (int b = 0; b < kLanes; ++b) {
        if (x[b] == 0) continue;
        const float half = half_value(half_bits(positive[b]));
        out[b] = x[b] < 0 ? -half : half;
    }
    return out;
}

// The weights of kLanes blocks and their importance, transposed: all[i] holds each block's weight i. Blocks
// that are not there are zeros.
template <int BlockSize>
struct Tile {
    F x[BlockSize], w[BlockSize];

    Tile(const BlocksToEncode& blocks, int64_t first) {
        auto* lanes_x = reinterpret_cast<float*>(x);
        auto* lanes_w = reinterpret_cast<float*>(w);
        for (int b = 0; b < kLanes; ++b) {
            const int64_t block = first + b;
            const bool there = block < blocks.count;
            const float* from = blocks.src + block * BlockSize;
            const int64_t column = (blocks.first + block) * BlockSize % blocks.columns;
            for (int i = 0; i < BlockSize; ++i) lanes_x[i * kLanes + b] = there ? from[i] : 0.0f;
            if (!blocks.importance) continue;
            const float* weight = blocks.importance + column;
            for (int i = 0; i < BlockSize; ++i) lanes_w[i * kLanes + b] = weight[i];
        }
        if (!blocks.importance) {
            for (F& weight : w) weight = all(1);
        }
    }

    // Makes the weights such that a search can bear them.
    void make_searchable() {
        for (F& weight : x) {
            weight = choose(magnitude(weight) < kTiny, F{}, clamp(weight, -1 / kTiny, 1 / kTiny));
        }
    }
};

// Small numbers of kLanes blocks, N a block, as bytes in the order of a block.
template <int N>
struct Codes {
    uint8_t of[kLanes][N];
    void set(int i, F code) {
        const I numbers = to_int(code);
        for (int b = 0; b < kLanes; ++b) of[b][i] = static_cast<uint8_t>(numbers[b]);
    }
};

// Joins `count` codes of `Bits` bits to bytes as `pack` in quants/bits.py does; `shift` drops their lowest
// bits first. Returns the byte behind the last one written.
template <int Bits>
inline uint8_t* pack(uint8_t* dst, const uint8_t* codes, int count, int run, int shift = 0) {
    constexpr int per_byte = 8 / Bits, mask = (1 << Bits) - 1;
    for (int start = 0; start < count; start += per_byte * run) {
        for (int i = 0; i < run; ++i) {
            int byte = 0;
            for (int j = 0; j < per_byte; ++j) byte |= (codes[start + j * run + i] >> shift & mask) << Bits * j;
            *dst++ = static_cast<uint8_t>(byte);
        }
    }
    return dst;
}

inline uint8_t* put_half(uint8_t* dst, float x) {
    const uint16_t bits = half_bits(x);
    __builtin_memcpy(dst, &bits, 2);
    return dst + 2;
}
