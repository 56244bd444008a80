// Computing recurrences on several threads.
#pragma once

#include "recurrence/problems.h"

namespace torchgguf {

void delta_rule(const DeltaRule& problem, int threads);
void delta_rule_backward(const DeltaRuleBackward& problem, int threads);
void state_space_step(const StateSpaceStep& problem, int threads);
void selective_scan(const SelectiveScan& problem, int threads);
void selective_scan_backward(const SelectiveScanBackward& problem, int threads);
void causal_convolution(const CausalConvolution& problem, int threads);

}  // namespace torchgguf
