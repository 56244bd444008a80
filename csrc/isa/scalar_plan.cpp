// The instructions of plans in portable C++: compilers make of its vectors what the CPU has.
#include "plan/problems.h"

namespace torchgguf::plan {
namespace {

constexpr int kLanes = 4;

#include "plan/kernels/kernels.inl"

}  // namespace

extern const Kernels scalar_plans = kKernels;

}  // namespace torchgguf::plan
