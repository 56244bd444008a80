// Between dequantize.cpp, which chooses, and the three dequantize_<isa>.cpp, which decode.
#pragma once

#include "dequantize.h"

namespace torchgguf {

constexpr int kGgmlTypes = 43;

struct Decoder {
    BlockLayout layout;
    DequantizeRow to_f32 = nullptr;
    void (*to_bf16)(const uint8_t* src, uint16_t* dst, int64_t n) = nullptr;
};

// kGgmlTypes entries, by ggml id; without functions where no tensor has the type.
const Decoder* decoders_scalar();
const Decoder* decoders_avx2();
const Decoder* decoders_avx512();
const Decoder* decoders_avx512_bf16();  // not of every type

}  // namespace torchgguf
