// y = x · Wᵀ + b with W in its packed blocks, for one or a few rows of x (decoding).
#pragma once

#include <cstdint>

namespace torchgguf {

struct LinearProblem {
    int type;               // ggml id of the weight's type
    const uint8_t* weight;  // (out_features, row_bytes)
    int64_t row_bytes;
    int64_t in_features;
    int64_t out_features;
    const float* x;  // (rows, in_features)
    int64_t rows;
    const float* bias;  // (out_features) or nullptr
    float* y;           // (rows, out_features)
};

// One way to compute a LinearProblem. `prepare` is called once and brings the activations into the form in
// which `compute` wants them; `compute` then fills the columns [begin, end) of y, from several threads.
struct LinearKernel {
    int64_t (*workspace_bytes)(int64_t in_features, int64_t rows);
    void (*prepare)(const LinearProblem& problem, uint8_t* workspace);
    void (*compute)(const LinearProblem& problem, const uint8_t* workspace, int64_t begin, int64_t end);
};

// False if no kernel reads the type, or its grid is missing (see grids.h).
bool linear(const LinearProblem& problem, int threads);

}  // namespace torchgguf
