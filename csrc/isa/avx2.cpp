// AVX2, with FMA, F16C and BMI2: 32 weights at a time in dot products, 16 in decoding, 8 blocks in encoding.
#include <immintrin.h>

#include <utility>

#include "grids.h"
#include "isa/backend.h"
#include "linear.h"

namespace torchgguf {
namespace {

#include "isa/bytes.inl"
#include "isa/x86.inl"

// Sixteen floats in two registers. What each function does: isa/scalar.cpp.
struct F32x16 {
    __m256 low, high;
};

inline F32x16 load_f32(const uint8_t* src) { return {load<__m256>(src), load<__m256>(src + 32)}; }

inline F32x16 load_f16(const uint8_t* src) {
    return {_mm256_cvtph_ps(load<__m128i>(src)), _mm256_cvtph_ps(load<__m128i>(src + 16))};
}

inline __m256 half_of_bf16(const uint8_t* src) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load<__m128i>(src)), 16));
}

inline F32x16 load_bf16(const uint8_t* src) { return {half_of_bf16(src), half_of_bf16(src + 16)}; }

inline F32x16 widen(u8x16 codes) {
    const auto bytes = (__m128i)codes;
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)))};
}

inline F32x16 operator*(F32x16 a, float b) {
    const __m256 all = _mm256_set1_ps(b);
    return {_mm256_mul_ps(a.low, all), _mm256_mul_ps(a.high, all)};
}

inline F32x16 operator-(F32x16 a, float b) {
    const __m256 all = _mm256_set1_ps(b);
    return {_mm256_sub_ps(a.low, all), _mm256_sub_ps(a.high, all)};
}

inline void store(float* dst, F32x16 a) { __builtin_memcpy(dst, &a, sizeof a); }

inline __m256i bf16_in_32_bits(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    const __m256 is_nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
    const __m256 kept = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), nan, is_nan);
    return _mm256_srli_epi32(_mm256_castps_si256(kept), 16);
}

inline void store(uint16_t* dst, F32x16 a) {
    const __m256i mixed = _mm256_packus_epi32(bf16_in_32_bits(a.low), bf16_in_32_bits(a.high));
    const __m256i out = _mm256_permute4x64_epi64(mixed, _MM_SHUFFLE(3, 1, 2, 0));
    __builtin_memcpy(dst, &out, sizeof out);
}

inline u8x16 byte_mask(uint16_t bits) {
    const u8x16 byte_of_bit = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    const u8x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return (u8x16)((lookup((u8x16)_mm_cvtsi32_si128(bits), byte_of_bit) & bit) == bit);
}

inline u8x16 add_where(u8x16 codes, uint16_t bits, uint8_t value) { return codes + (byte_mask(bits) & value); }

inline u8x16 negate_where(u8x16 codes, uint16_t bits) {
    const u8x16 minus = byte_mask(bits);
    return (codes ^ minus) - minus;
}

#include "formats/parts.inl"

#include "formats/decode/types.inl"

constexpr DecoderTable kDecoders(AllTypes{});

struct Simd : SimdX86 {
    using Bytes = __m256i;
    using Floats = __m256;
    static constexpr int64_t kWidth = 32;  // weights at a time
    static constexpr int64_t kFloats = 8;

    static Floats zero() { return _mm256_setzero_ps(); }
    static Floats set(float v) { return _mm256_set1_ps(v); }
    static Floats load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
    static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static float sum(Floats v) {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    template <class Bits>
    static void store_halves16(float* out, Bits bits) {
        const Halves16 halves = gather_halves16(bits);
        store(out, _mm256_cvtph_ps(halves.low));
        store(out + 8, _mm256_cvtph_ps(halves.high));
    }

    // 32 weights from the 16 bytes at p: low nibbles, then high ones.
    static Bytes nibbles16(const uint8_t* p, int64_t) {
        const Bytes both = _mm256_broadcastsi128_si256(load16(p));
        return mask(_mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0)), 15);
    }
    static Bytes bytes32(const uint8_t* p, int64_t) { return load32(p); }
    // The 32 bytes at the first offset, shifted right; bits that cross bytes are the caller's to mask.
    template <int first, int first_shift, int second, int second_shift>
    static Bytes groups(const uint8_t* p) {
        const Bytes v = load32(p + first);
        return first_shift == 0 ? v : _mm256_srli_epi64(v, first_shift);
    }
    static Bytes mask(Bytes v, char bits) { return _mm256_and_si256(v, _mm256_set1_epi8(bits)); }
    template <int n>
    static Bytes shift_left(Bytes v) {
        return _mm256_slli_epi64(v, n);
    }
    static Bytes or_bits(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
    // Sets `bit` in each byte whose bit among the 32 at p is set.
    static Bytes or_where(Bytes v, const uint8_t* p, int64_t, char bit) {
        // Each byte gets the byte of the 32 bits that holds its own, then keeps that alone.
        const Bytes holders = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
        const Bytes own_bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
        const Bytes bits = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(load_u32(p))), holders);
        const Bytes where = _mm256_cmpeq_epi8(_mm256_and_si256(bits, own_bit), own_bit);
        return _mm256_or_si256(v, mask(where, bit));
    }
    static Bytes flip_sign(Bytes v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
    static Bytes lookup(const uint8_t* table, Bytes index) {
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load16(table)), index);
    }

    // Scales of consecutive sub-blocks, each in the lanes that hold its weights' sums.
    template <int sub>
    static Floats expand(const float* scale) {
        if constexpr (sub == 32) {
            return _mm256_broadcast_ss(scale);
        } else {
            return _mm256_set_m128(_mm_broadcast_ss(scale + 1), _mm_broadcast_ss(scale));
        }
    }

    // Activations lie in the order in which unpacklo and unpackhi widen bytes: 0-7, 16-23, then 8-15, 24-31.
    static void store_activations(int8_t* integers, int64_t at, const int16_t* q) {
        auto* out = reinterpret_cast<__m256i*>(integers + 2 * at);
        const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
        const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + 16));
        _mm256_storeu_si256(out, _mm256_permute2x128_si256(first, second, 0x20));
        _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(first, second, 0x31));
    }
    static Floats dot(Bytes q, const int8_t* x) {
        const auto* halves = reinterpret_cast<const __m256i*>(x);
        const __m256i none = _mm256_setzero_si256();
        const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi8(q, none), _mm256_loadu_si256(halves));
        const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi8(q, none), _mm256_loadu_si256(halves + 1));
        return _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
    }

    // 32 floats to integers of at most `max`; returns their scale, NaN if any of them is not finite.
    static float quantize32(const float* x, float max, int16_t* q) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        __m256 poison = zero(), largest_of = zero();
        for (int i = 0; i < 32; i += 8) {
            const __m256 v = load(x + i);
            poison = fma(v, zero(), poison);
            largest_of = _mm256_max_ps(largest_of, _mm256_andnot_ps(sign, v));
        }
        alignas(32) float lanes[8];
        store(lanes, largest_of);
        float largest = 0.0f;
        for (float lane : lanes) largest = lane > largest ? lane : largest;
        const Scaling scaling = SimdX86::scaling(largest, max);
        const __m256 inverse = _mm256_set1_ps(scaling.there);
        for (int i = 0; i < 32; i += 16) {
            const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(load(x + i), inverse));
            const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(load(x + i + 8), inverse));
            const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i), packed);
        }
        return scaling.back + sum(poison);
    }
};

#include "formats/dot/decoded.inl"
#include "formats/dot/types.inl"

#include "formats/dot/rows.inl"

constexpr LinearTable kLinears(AllTypes{});

namespace encode {

constexpr int kLanes = 8;

#include "formats/encode/lane_types.inl"

inline F min(F a, F b) { return (F)_mm256_min_ps((__m256)a, (__m256)b); }
inline F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
inline F look_up_8(const float* table, I index) {
    return (F)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
}
inline F look_up(const float* table, I index) {
    return choose(index > 7, look_up_8(table + 8, index & 7), look_up_8(table, index & 7));
}

#include "formats/encode/types.inl"

constexpr EncoderTable kEncoders(AllTypes{});

}  // namespace encode

}  // namespace

extern const RecurrenceKernels avx2_recurrences;  // in a file of its own

namespace plan {
extern const Kernels avx2_plans;  // likewise
}

extern const Backend avx2 = {
    .name = "avx2",
    .needs = kAvx2 | kFma | kF16c | kBmi2,
    .base = &scalar,
    .linear = kLinears.by_id,
    .decoders = kDecoders.by_id,
    .encoders = encode::kEncoders.by_id,
    .recurrences = &avx2_recurrences,
    .plans = &plan::avx2_plans,
};

}  // namespace torchgguf
