// AVX-512 with VNNI (Ice Lake, Zen 4 and later): 64 weights at a time in dot products, 16 in decoding, 16 blocks in
// encoding.
#include <immintrin.h>

#include <utility>

#include "grids.h"
#include "isa/backend.h"
#include "linear.h"

namespace torchgguf {
namespace {

#include "isa/bytes.inl"
#include "isa/x86.inl"

#include "isa/avx512_floats.inl"

#include "formats/parts.inl"

#include "formats/decode/types.inl"

constexpr DecoderTable kDecoders(AllTypes{});

struct Simd : SimdX86 {
    using Bytes = __m512i;
    using Floats = __m512;
    static constexpr int64_t kWidth = 64;  // weights at a time
    static constexpr int64_t kFloats = 16;

    static Floats zero() { return _mm512_setzero_ps(); }
    static Floats set(float v) { return _mm512_set1_ps(v); }
    static Floats load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
    static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static float sum(Floats v) { return _mm512_reduce_add_ps(v); }
    template <class Bits>
    static void store_halves16(float* out, Bits bits) {
        const Halves16 halves = gather_halves16(bits);
        store(out, _mm512_cvtph_ps(_mm256_set_m128i(halves.high, halves.low)));
    }

    // 32 weights from the 16 bytes at p (low nibbles, then high ones), and 32 from those at p + stride.
    static Bytes nibbles16(const uint8_t* p, int64_t stride) {
        const Bytes both = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_broadcastsi128_si256(load16(p))),
                                              _mm256_broadcastsi128_si256(load16(p + stride)), 1);
        return mask(_mm512_srlv_epi64(both, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0)), 15);
    }
    static Bytes bytes32(const uint8_t* p, int64_t stride) {
        return _mm512_inserti64x4(_mm512_castsi256_si512(load32(p)), load32(p + stride), 1);
    }
    // The 32 bytes at each offset, shifted right; bits that cross bytes are the caller's to mask.
    template <int first, int first_shift, int second, int second_shift>
    static Bytes groups(const uint8_t* p) {
        Bytes both;
        if constexpr (first == second) {
            both = _mm512_broadcast_i64x4(load32(p + first));
        } else if constexpr (second == first + 32) {
            both = _mm512_loadu_si512(p + first);
        } else {
            both = _mm512_inserti64x4(_mm512_castsi256_si512(load32(p + first)), load32(p + second), 1);
        }
        if constexpr (first_shift == second_shift) {
            return first_shift == 0 ? both : _mm512_srli_epi64(both, first_shift);
        } else {
            constexpr long long a = first_shift, b = second_shift;
            return _mm512_srlv_epi64(both, _mm512_set_epi64(b, b, b, b, a, a, a, a));
        }
    }
    static Bytes mask(Bytes v, char bits) { return _mm512_and_si512(v, _mm512_set1_epi8(bits)); }
    template <int n>
    static Bytes shift_left(Bytes v) {
        return _mm512_slli_epi64(v, n);
    }
    static Bytes or_bits(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
    // Sets `bit`, which is clear in v, in each byte whose bit among the 32 at p and the 32 at p + stride is set.
    static Bytes or_where(Bytes v, const uint8_t* p, int64_t stride, char bit) {
        const uint64_t first = load_u32(p), second = load_u32(p + stride);
        const __mmask64 where = _cvtu64_mask64(first | second << 32);
        return _mm512_mask_add_epi8(v, where, v, _mm512_set1_epi8(bit));
    }
    static Bytes flip_sign(Bytes v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
    static Bytes lookup(const uint8_t* table, Bytes index) {
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load16(table)), index);
    }

    // Scales of consecutive sub-blocks, each in the lanes that hold its weights' sums.
    template <int sub>
    static Floats expand(const float* scale) {
        if constexpr (sub == 32) {
            const __m512 pair = _mm512_castpd_ps(_mm512_set1_pd(*reinterpret_cast<const double_alias*>(scale)));
            return _mm512_permutevar_ps(pair, _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
        } else {
            const __m512 four = _mm512_broadcast_f32x4(_mm_loadu_ps(scale));
            return _mm512_permutevar_ps(four, _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0));
        }
    }

    // Activations lie as 64 high bytes, then 64 low bytes: x = 256 * high + low, both signed.
    static void store_activations(int8_t* integers, int64_t at, const int16_t* q) {
        int8_t* high = integers + at / 64 * 128 + at % 64;
        const __m512i x = _mm512_loadu_si512(q);
        const __m512i h = _mm512_srai_epi16(_mm512_add_epi16(x, _mm512_set1_epi16(128)), 8);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(high), _mm512_cvtepi16_epi8(h));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(high + 64), _mm512_cvtepi16_epi8(x));
    }
    static Floats dot(Bytes q, const int8_t* x) {
        __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q, _mm512_loadu_si512(x));
        sum = _mm512_dpbusd_epi32(_mm512_slli_epi32(sum, 8), q, _mm512_loadu_si512(x + 64));
        return _mm512_cvtepi32_ps(sum);
    }

    // 32 floats to integers of at most `max`; returns their scale, NaN if any of them is not finite.
    static float quantize32(const float* x, float max, int16_t* q) {
        const __m512 a = load(x), b = load(x + 16);
        const __m512 poison = fma(a, zero(), mul(b, zero()));
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        const Scaling scaling = SimdX86::scaling(largest, max);
        const __m512 inverse = _mm512_set1_ps(scaling.there);
        const __m512i ia = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
        const __m512i ib = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm512_cvtsepi32_epi16(ia));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + 16), _mm512_cvtsepi32_epi16(ib));
        return scaling.back + sum(poison);
    }

private:
    using double_alias __attribute__((may_alias)) = double;
};

#include "formats/dot/decoded.inl"
#include "formats/dot/types.inl"

#include "formats/dot/rows.inl"

constexpr LinearTable kLinears(AllTypes{});

namespace encode {

constexpr int kLanes = 16;

#include "formats/encode/lane_types.inl"

inline F min(F a, F b) { return (F)_mm512_min_ps((__m512)a, (__m512)b); }
inline F max(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
inline F look_up_8(const float* table, I index) {
    return (F)_mm512_permutexvar_ps((__m512i)index, _mm512_castps256_ps512(_mm256_loadu_ps(table)));
}
inline F look_up(const float* table, I index) {
    return (F)_mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}

#include "formats/encode/types.inl"

constexpr EncoderTable kEncoders(AllTypes{});

}  // namespace encode

}  // namespace

extern const RecurrenceKernels avx512_recurrences;  // in a file of its own

namespace plan {
extern const Kernels avx512_plans;  // likewise
}

extern const Backend avx512 = {
    .name = "avx512",
    .needs = kAvx2 | kFma | kF16c | kBmi2 | kAvx512F | kAvx512Bw | kAvx512Vl | kAvx512Dq | kAvx512Vnni,
    .base = &scalar,
    .linear = kLinears.by_id,
    .decoders = kDecoders.by_id,
    .encoders = encode::kEncoders.by_id,
    .recurrences = &avx512_recurrences,
    .plans = &plan::avx512_plans,
};

}  // namespace torchgguf
