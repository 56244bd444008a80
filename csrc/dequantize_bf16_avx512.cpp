// As dequantize_avx512.cpp, but rounding to BF16 in one instruction (AVX512_BF16: Zen 4, Sapphire Rapids and
// later). It takes subnormal numbers for zero, so only types none of whose weights are so small can use it.
#define TORCHGGUF_AVX512_BF16
#include <immintrin.h>

#include "dequantize_table.h"

namespace torchgguf {
namespace {
#include "simd_bytes.inl"
#include "simd_avx512.inl"
#include "dequantize_formats.inl"

constexpr ScaledDecoders kDecoders;
}  // namespace

const Decoder* decoders_avx512_bf16() { return kDecoders.by_id; }

}  // namespace torchgguf
