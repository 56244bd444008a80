// The instructions of plans with AVX2, FMA and F16C.
#include <immintrin.h>

#include "plan/problems.h"

namespace torchgguf::plan {
namespace {

constexpr int kLanes = 8;

#include "plan/kernels/kernels.inl"

}  // namespace

extern const Kernels avx2_plans = kKernels;

}  // namespace torchgguf::plan
