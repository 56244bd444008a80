#include "quantize_table.h"

namespace torchgguf {
namespace {
constexpr int kLanes = 4;
#include "quantize_formats.inl"

constexpr AllEncoders kEncoders;
}  // namespace

const EncodeBlocks* encoders_scalar() { return kEncoders.by_id; }

}  // namespace torchgguf
