// GCC 12 takes the undefined operand inside its own AVX-512 intrinsics for a mistake (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>

#include "dequantize_table.h"

namespace torchgguf {
namespace {
#include "simd_bytes.inl"
#include "simd_avx512.inl"
#include "dequantize_formats.inl"
}  // namespace

const Decoder* decoders_avx512() { return kDecoders.by_id; }

}  // namespace torchgguf
