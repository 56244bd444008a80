// The I-quants' grids, as the search for the nearest entry wants them.
#pragma once

#include <cstdint>

namespace torchgguf {

// An entry's numbers are few different ones, its levels; the two halves of an entry are numbers whose digits
// say which, the first number being the highest digit. So the losses of all halves are found once, and an
// entry's is the sum of two of them. Entries are sorted by their halves and stand in runs that share the first
// one, whose loss is added once for all of a run; a short run is filled up with its last entry.
struct GridTable {
    int levels = 0, runs = 0;
    float level[8] = {};
    uint16_t first_half[512] = {};                      // of each run
    uint16_t second_half[4096] = {}, entry[4096] = {};  // of each place in a run, and which entry is there
    float numbers[2048][8] = {};                        // of each entry
};

// Longer runs where more entries share a half.
constexpr int grid_run_length(int entries) { return entries > 512 ? 8 : 4; }

// Of one of the types that have a grid, which must have been handed over (see dequantize.h).
const GridTable& grid_table(int ggml_type);

}  // namespace torchgguf
