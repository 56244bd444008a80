// Recurrences in portable C++: compilers make of its vectors what the CPU has.
#include "recurrence/problems.h"

namespace torchgguf {
namespace {

constexpr int kLanes = 4, kTileVectors = 2, kStepVectors = 2;

#include "recurrence/kernels.inl"

}  // namespace

extern const RecurrenceKernels scalar_recurrences = kRecurrences;

}  // namespace torchgguf
