// The instructions of plans with AVX-512.
#include <immintrin.h>

#include "plan/problems.h"

namespace torchgguf::plan {
namespace {

constexpr int kLanes = 16;

#include "plan/kernels/kernels.inl"

}  // namespace

extern const Kernels avx512_plans = kKernels;

}  // namespace torchgguf::plan
