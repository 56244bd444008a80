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

inline float sum_of_lanes(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

using Scaling = SimdX86::Scaling;

#include "formats/dot/decoded.inl"
#include "isa/avx2_activations.inl"
#include "isa/avx2_dot_types.inl"

#include "isa/avx2_dot.inl"

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
