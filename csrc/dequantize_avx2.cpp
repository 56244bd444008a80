#include <immintrin.h>

#include "dequantize_table.h"

namespace torchgguf {
namespace {
#include "simd_bytes.inl"
#include "simd_avx2.inl"
#include "dequantize_formats.inl"

constexpr AllDecoders kDecoders;
}  // namespace

const Decoder* decoders_avx2() { return kDecoders.by_id; }

}  // namespace torchgguf
