// All kernels of recurrences, for the instruction set that the including file is compiled for. It defines, in an
// unnamed namespace: kLanes, floats in a vector; kTileVectors and kStepVectors, vectors side by side in products and
// in steps, which the registers must hold four times and twice.

// In the order in which they use each other.
#include "recurrence/lanes.inl"

#include "recurrence/products.inl"

#include "recurrence/delta_head.inl"

#include "recurrence/delta_chunk.inl"

#include "recurrence/delta_rule.inl"

#include "recurrence/delta_backward.inl"

#include "recurrence/state_space_step.inl"

#include "recurrence/selective_scan.inl"

#include "recurrence/selective_backward.inl"

#include "recurrence/convolution.inl"

constexpr RecurrenceKernels kRecurrences = {
    .delta_rule = {&delta_rule_tasks, &delta_rule_workspace, &compute_delta_rule},
    .delta_rule_backward = {&delta_backward_tasks, &delta_backward_workspace, &compute_delta_backward},
    .state_space_step = {&state_space_tasks, &state_space_workspace, &compute_state_space_step},
    .selective_scan = {&selective_scan_tasks, &selective_scan_workspace, &compute_selective_scan},
    .selective_scan_backward = {&selective_backward_tasks, &selective_backward_workspace, &compute_selective_backward},
    .causal_convolution = {&convolution_tasks, &convolution_workspace, &compute_convolution},
};
