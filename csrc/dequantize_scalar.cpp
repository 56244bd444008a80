#include "dequantize_table.h"

namespace torchgguf {
namespace {
#include "simd_bytes.inl"
#include "simd_scalar.inl"
#include "dequantize_formats.inl"

constexpr AllDecoders kDecoders;
}  // namespace

const Decoder* decoders_scalar() { return kDecoders.by_id; }

}  // namespace torchgguf
