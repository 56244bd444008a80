// The I-quants' grids, as the search for the nearest entry wants them.
#pragma once

#include <cstdint>

namespace torchgguf {

// An entry's `dim` numbers are few different ones, its levels; the two halves of an entry are numbers whose
// digits say which. So the losses of all halves are found once, and an entry's is the sum of two of them.
struct GridTable {
    int entries = 0, dim = 0, levels = 0;
    float level[8] = {};
    uint16_t low[2048] = {}, high[2048] = {};   // the first half: its first number is the lowest digit
    float numbers[2048][8] = {};
};

// Of one of the types that have a grid, which must have been handed over (see dequantize.h).
const GridTable& grid_table(int ggml_type);

}  // namespace torchgguf
