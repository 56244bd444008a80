// All kernels of recurrences, for the instruction set that the including file is compiled for. It defines, in an
// unnamed namespace: kLanes, floats in a vector; kTileVectors and kStepVectors, vectors side by side in products and
// in steps, which the registers must hold four times and twice.

#include "recurrence/lanes.inl"
#include "recurrence/products.inl"

#include "recurrence/convolution.inl"
#include "recurrence/delta_rule.inl"
#include "recurrence/selective_scan.inl"
#include "recurrence/state_space_step.inl"

constexpr RecurrenceKernels kRecurrences = {
    .delta_rule = {&delta_rule_tasks, &delta_rule_workspace, &compute_delta_rule},
    .state_space_step = {&state_space_tasks, &state_space_workspace, &compute_state_space_step},
    .selective_scan = {&selective_scan_tasks, &selective_scan_workspace, &compute_selective_scan},
    .causal_convolution = {&convolution_tasks, &convolution_workspace, &compute_convolution},
};
