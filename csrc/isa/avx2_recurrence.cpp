// Recurrences with AVX2 and FMA.
#include "recurrence/problems.h"

namespace torchgguf {
namespace {

constexpr int kLanes = 8, kTileVectors = 2, kStepVectors = 4;

#include "recurrence/kernels.inl"

}  // namespace

extern const RecurrenceKernels avx2_recurrences = kRecurrences;

}  // namespace torchgguf
