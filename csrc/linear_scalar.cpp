// Linear without vector instructions: every type is decoded first.
#include "cpu_features.h"
#include "dequantize.h"
#include "linear.h"

namespace torchgguf {
namespace {
#include "linear_decoded.inl"
}  // namespace

const LinearKernel* linear_kernel_scalar(int) { return &kDecodedKernel<Isa::scalar>; }

}  // namespace torchgguf
