// Packing weights into the blocks of a GGUF type: the search for scales that src/torchgguf/quants/fitting.py and the
// types' `encode` there explain, with the same bytes as result on every instruction set.
#pragma once

#include <cstdint>

namespace torchgguf {

// Packs `rows` rows of `n` weights (a multiple of the type's block size; finite) into `dst`, all contiguous.
// `importance`, n numbers above zero, weighs the errors of each column; nullptr: all alike. False, and nothing
// written, if no encoder writes the type, or its grid is missing (see grids.h).
bool quantize_rows(int type, const float* src, const float* importance, uint8_t* dst, int64_t rows, int64_t n,
                   int threads);

}  // namespace torchgguf
