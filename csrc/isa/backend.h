// What one instruction set brings: a row, defined in the file that is compiled for it. registry.cpp lists the rows.
#pragma once

#include <cstdint>

#include "formats/layouts.h"
#include "isa/cpu_features.h"
#include "linear.h"
#include "plan/problems.h"
#include "recurrence/problems.h"

namespace torchgguf {

// Decodes `n` weights, a multiple of the type's block size, that start at `src`. Neither pointer needs to be aligned;
// no byte outside the blocks is read.
struct Decoder {
    void (*to_f32)(const uint8_t* src, float* dst, int64_t n) = nullptr;
    void (*to_bf16)(const uint8_t* src, uint16_t* dst, int64_t n) = nullptr;
};

// Some blocks of a tensor, one after the other, whose rows have `columns` weights each.
struct BlocksToEncode {
    const float* src;
    const float* importance;  // of the tensor's columns, or nullptr
    int64_t columns;
    int64_t first;  // index of the first block in the tensor
    int64_t count;
};

using EncodeBlocks = void (*)(const BlocksToEncode& blocks, uint8_t* dst);

// Rows are constants and hold no function that runs before the CPU was found to have what the row needs: whatever is
// in its file may use the instruction set. Tables are by ggml id. Where one is missing or has an empty entry, `base`
// is asked instead, so that an instruction set may begin with a single kernel.
struct Backend {
    const char* name;
    CpuFeatures needs = 0;
    const Backend* base = nullptr;
    const LinearKernel* linear = nullptr;
    const Decoder* decoders = nullptr;
    const EncodeBlocks* encoders = nullptr;
    const RecurrenceKernels* recurrences = nullptr;
    const plan::Kernels* plans = nullptr;
};

extern const Backend scalar;  // what every CPU runs: the last base of all others

}  // namespace torchgguf
