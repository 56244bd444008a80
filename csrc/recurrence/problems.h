// Recurrences along a text, and causal convolutions: problems, and what an instruction set brings to compute them.
//
// What they compute: src/torchgguf/nn/recurrence. Every tensor is contiguous FP32, in the order of its dimensions.
// Shape letters: B batch, T positions, K heads of queries and keys, H heads of values (a multiple of K), N size of
// keys, V size of values, C channels.
#pragma once

#include <cstdint>

namespace torchgguf {

// S <- exp(decay) S; S <- S + beta k (v - k S); output q S. Without `corrected`, S <- S + beta k v: what Mamba 2 has.
struct DeltaRule {
    int64_t batch, length, key_heads, heads, n, v;
    bool channel_decay, corrected;
    const float* query;  // (B, T, K, N)
    const float* key;    // (B, T, K, N)
    const float* value;  // (B, T, H, V)
    const float* decay;  // (B, T, H), or (B, T, H, N) if channel_decay
    const float* beta;   // (B, T, H)
    const float* state;  // (B, H, N, V)
    float* out;          // (B, T, H, V)
    float* new_state;    // (B, H, N, V)
};

// Its gradients. Those of queries and keys are sums over the heads of values that share them, of a slice at a time.
struct DeltaRuleBackward {
    DeltaRule forward;  // with neither outputs
    int64_t slices;     // of the heads that share keys
    const float* grad_out;
    const float* grad_state;
    float* query;  // (B, T, K, slices, N)
    float* key;    // (B, T, K, slices, N)
    float* value;
    float* decay;
    float* beta;
    float* state;
};

// s <- exp(step a) s + step x b; output c s. For few positions.
struct StateSpaceStep {
    int64_t batch, length, groups, heads, n, v;
    const float* x;      // (B, T, H, V)
    const float* step;   // (B, T, H)
    const float* a;      // (H)
    const float* b;      // (B, T, G, N)
    const float* c;      // (B, T, G, N)
    const float* state;  // (B, H, V, N)
    float* out;          // (B, T, H, V)
    float* new_state;    // (B, H, V, N)
};

// The same with a state, a step and factors of each channel.
struct SelectiveScan {
    int64_t batch, length, channels, n;
    const float* x;      // (B, T, C)
    const float* step;   // (B, T, C)
    const float* a;      // (C, N)
    const float* b;      // (B, T, N)
    const float* c;      // (B, T, N)
    const float* state;  // (B, C, N)
    float* out;          // (B, T, C)
    float* new_state;    // (B, C, N)
};

// Its gradients. Those of b and c are sums over the channels, of a slice at a time.
struct SelectiveScanBackward {
    SelectiveScan forward;  // with neither outputs
    int64_t slices;         // of the channels
    const float* grad_out;
    const float* grad_state;
    float* x;
    float* step;
    float* a;  // (B, C, N)
    float* b;  // (B, slices, T, N)
    float* c;  // (B, slices, T, N)
    float* state;
};

struct CausalConvolution {
    int64_t batch, channels, length, size;
    const float* x;       // (B, C, size - 1 + T)
    const float* weight;  // (C, size)
    const float* bias;    // (C) or nullptr
    float* out;           // (B, C, T)
};

// One way to compute a problem. Its tasks are independent of each other; each uses the floats of a workspace, whatever
// is in them.
template <class Problem>
struct TaskKernel {
    int64_t (*tasks)(const Problem& problem);
    int64_t (*workspace)(const Problem& problem);
    void (*compute)(const Problem& problem, int64_t task, float* workspace);
};

struct RecurrenceKernels {
    TaskKernel<DeltaRule> delta_rule;
    TaskKernel<DeltaRuleBackward> delta_rule_backward;
    TaskKernel<StateSpaceStep> state_space_step;
    TaskKernel<SelectiveScan> selective_scan;
    TaskKernel<SelectiveScanBackward> selective_scan_backward;
    TaskKernel<CausalConvolution> causal_convolution;
};

}  // namespace torchgguf
