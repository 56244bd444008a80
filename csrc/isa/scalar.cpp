// Portable C++: what every CPU runs, and the list of what an instruction set must bring.

#include "grids.h"
#include "isa/backend.h"
#include "linear.h"

namespace torchgguf {
namespace {

#include "isa/bytes.inl"

// Sixteen floats.
struct F32x16 {
    float lane[16];
};

inline float half_to_float(uint16_t half) {
    const uint32_t magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
    const uint32_t normal = (magnitude << 13) + (112u << 23);
    const uint32_t special = magnitude << 13 | 0x7f800000u;  // infinity, NaN
    const auto subnormal = bits_as<uint32_t>(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f);
    return bits_as<float>(sign | (magnitude < 0x0400u ? subnormal : magnitude < 0x7c00u ? normal : special));
}

inline F32x16 load_f32(const uint8_t* src) { return load<F32x16>(src); }

inline F32x16 load_f16(const uint8_t* src) {
    F32x16 out;
    for (int i = 0; i < 16; ++i) out.lane[i] = half_to_float(load<uint16_t>(src + 2 * i));
    return out;
}

inline F32x16 load_bf16(const uint8_t* src) {
    F32x16 out;
    for (int i = 0; i < 16; ++i) out.lane[i] = bits_as<float>(uint32_t{load<uint16_t>(src + 2 * i)} << 16);
    return out;
}

// Sixteen signed bytes as floats.
inline F32x16 widen(u8x16 codes) {
    F32x16 out;
    for (int i = 0; i < 16; ++i) out.lane[i] = static_cast<int8_t>(codes[i]);
    return out;
}

inline F32x16 operator*(F32x16 a, float b) {
    for (float& lane : a.lane) lane *= b;
    return a;
}

inline F32x16 operator-(F32x16 a, float b) {
    for (float& lane : a.lane) lane -= b;
    return a;
}

inline void store(float* dst, F32x16 a) { __builtin_memcpy(dst, &a, sizeof a); }

// To BF16.
inline void store(uint16_t* dst, F32x16 a) {
    for (int i = 0; i < 16; ++i) {
        const auto bits = bits_as<uint32_t>(a.lane[i]);
        const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;  // to nearest, ties to even
        const bool is_nan = a.lane[i] != a.lane[i];                           // which might come out as zero
        dst[i] = static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded);
    }
}

struct Bytes16 {
    uint8_t byte[16];
};

// table[index[i]]; every index is below 16.
inline u8x16 lookup(u8x16 table, u8x16 index) {
    const auto from = bits_as<Bytes16>(table), at = bits_as<Bytes16>(index);
    Bytes16 out;
    for (int i = 0; i < 16; ++i) out.byte[i] = from.byte[at.byte[i]];
    return bits_as<u8x16>(out);
}

// 0xff in each byte whose bit is set.
inline u8x16 byte_mask(uint16_t bits) {
    const u8x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint64_t every_byte = 0x0101010101010101u;
    const auto spread = (u8x16)(u64x2){(bits & 0xffu) * every_byte, (bits >> 8) * every_byte};
    return (u8x16)((spread & bit) == bit);
}

// Adds `value` to each byte whose bit is set.
inline u8x16 add_where(u8x16 codes, uint16_t bits, uint8_t value) { return codes + (byte_mask(bits) & value); }

// Negates each byte whose bit is set.
inline u8x16 negate_where(u8x16 codes, uint16_t bits) {
    const u8x16 minus = byte_mask(bits);
    return (codes ^ minus) - minus;
}

#include "formats/parts.inl"

#include "formats/decode/types.inl"

constexpr DecoderTable kDecoders(AllTypes{});

#include "formats/dot/decoded.inl"

constexpr LinearTable kLinears(AllTypes{});

namespace encode {

constexpr int kLanes = 4;

#include "formats/encode/lane_types.inl"

inline F min(F a, F b) { return a < b ? a : b; }
inline F max(F a, F b) { return a > b ? a : b; }
inline F look_up_8(const float* table, I index) {
    F out;
    for (int b = 0; b < kLanes; ++b) out[b] = table[index[b]];
    return out;
}
inline F look_up(const float* table, I index) { return look_up_8(table, index); }

#include "formats/encode/types.inl"

constexpr EncoderTable kEncoders(AllTypes{});

}  // namespace encode

}  // namespace

extern const RecurrenceKernels scalar_recurrences;  // in a file of its own

namespace plan {
extern const Kernels scalar_plans;  // likewise
}

extern const Backend scalar = {
    .name = "scalar",
    .linear = kLinears.by_id,
    .decoders = kDecoders.by_id,
    .encoders = encode::kEncoders.by_id,
    .recurrences = &scalar_recurrences,
    .plans = &plan::scalar_plans,
};

}  // namespace torchgguf
