// Recurrences with AVX-512.
#include "recurrence/problems.h"

namespace torchgguf {
namespace {

constexpr int kLanes = 16, kTileVectors = 4, kStepVectors = 8;

#include "recurrence/kernels.inl"

}  // namespace

extern const RecurrenceKernels avx512_recurrences = kRecurrences;

}  // namespace torchgguf
