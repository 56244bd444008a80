// Between quantize.cpp, which chooses, and the three quantize_<isa>.cpp, which encode.
#pragma once

#include <cstdint>

#include "dequantize_table.h"
#include "quantize_grids.h"

namespace torchgguf {

// Some blocks of a tensor, one after the other, whose rows have `columns` weights each.
struct BlocksToEncode {
    const float* src;
    const float* importance;  // of the tensor's columns, or nullptr
    int64_t columns;
    int64_t first;  // index of the first block in the tensor
    int64_t count;
};

using EncodeBlocks = void (*)(const BlocksToEncode& blocks, uint8_t* dst);

// kGgmlTypes entries, by ggml id; nullptr where there is no encoder.
const EncodeBlocks* encoders_scalar();
const EncodeBlocks* encoders_avx2();
const EncodeBlocks* encoders_avx512();

}  // namespace torchgguf
