// Decoding packed weights: from the bytes of a GGUF block type to FP32 (bit-exact with ggml) or to BF16 (that FP32
// rounded to nearest even). Types are named by their ggml ids, as a GGUF file states them.
#pragma once

#include <cstdint>

namespace torchgguf {

enum class OutputKind { f32, bf16 };

// Decodes `rows` rows of `n` weights (a multiple of the type's block size) into `dst`, both contiguous. False, and
// nothing written, if no decoder reads the type, or its grid is missing (see grids.h).
bool dequantize_rows(int type, const uint8_t* src, void* dst, int64_t rows, int64_t n, OutputKind kind, int threads);

// Decodes the rows that `indices` names: each in [0, rows of the table), which the caller checks.
bool embedding_rows(int type, const uint8_t* src, const int64_t* indices, int64_t count, void* dst, int64_t n,
                    OutputKind kind, int threads);

}  // namespace torchgguf
