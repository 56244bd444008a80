// Decoding packed weights: from the bytes of a GGUF block type to FP32 (bit-exact with ggml) or to BF16 (that
// FP32 rounded to nearest even). Types are named by their ggml ids, as a GGUF file states them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu_features.h"

namespace torchgguf {

// Decodes `n` weights, a multiple of the type's block size, that start at `src`. Neither pointer needs to be
// aligned, and no byte outside the blocks is read.
using DequantizeRow = void (*)(const uint8_t* src, float* dst, int64_t n);

// nullptr if the type has no native decoder (each that torchgguf.quants knows has one), or if it is one with
// a grid and the grid was not handed over yet.
DequantizeRow dequantize_row(int ggml_type, Isa isa);

// Weights and bytes a block; both 0 if the type has no native decoder.
struct BlockLayout {
    int64_t block_size = 0;
    int64_t type_size = 0;
    int64_t bytes(int64_t n) const { return n / block_size * type_size; }
};
BlockLayout block_layout(int ggml_type);

// The codebooks of the I-quants: entry i of a grid is the 8 (uint64) or 4 (uint32) signed bytes at grid + i.
// They are part of the gguf package and handed over from there once, so that they are typed nowhere twice.
struct Grids {
    uint64_t iq1[2048];  // IQ1_S and IQ1_M
    uint64_t iq2_xxs[256];
    uint64_t iq2_xs[512];
    uint64_t iq2_s[1024];
    uint32_t iq3_xxs[256];
    uint32_t iq3_s[512];
};
extern Grids grids;

// False, and nothing changed, if the type has no grid or the size is not the grid's.
bool set_grid(int ggml_type, const void* bytes, size_t size);

enum class OutputKind { f32 = 0, bf16 = 1 };

// Decodes `rows` rows of `n` weights into `dst`, both without gaps. False if there is no decoder.
bool dequantize_rows(int ggml_type, const uint8_t* src, void* dst, int64_t rows, int64_t n, OutputKind kind,
                     int threads);

// Decodes the rows that `indices` names (each in [0, rows of the table), which is the caller's to check).
bool embedding_rows(int ggml_type, const uint8_t* src, const int64_t* indices, int64_t count, void* dst,
                    int64_t n, OutputKind kind, int threads);

}  // namespace torchgguf
