#include <immintrin.h>

#include "quantize_table.h"

namespace torchgguf {
namespace {
constexpr int kLanes = 8;
#include "quantize_formats.inl"

constexpr AllEncoders kEncoders;
}  // namespace

const EncodeBlocks* encoders_avx2() { return kEncoders.by_id; }

}  // namespace torchgguf
