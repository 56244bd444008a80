// The codebooks of the I-quants. The gguf package contains them; Python passes them on once, when it imports
// torchgguf.quants, so that they are typed nowhere twice.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/layouts.h"

namespace torchgguf {

// Entry i of a grid is the 8 (uint64) or 4 (uint32) signed bytes at grid + i.
struct Grids {
    uint64_t iq1[IQ1_S::grid.entries];  // IQ1_S and IQ1_M
    uint64_t iq2_xxs[IQ2_XXS::grid.entries];
    uint64_t iq2_xs[IQ2_XS::grid.entries];
    uint64_t iq2_s[IQ2_S::grid.entries];
    uint32_t iq3_xxs[IQ3_XXS::grid.entries];
    uint32_t iq3_s[IQ3_S::grid.entries];
};
extern Grids grids;

// False, and nothing changed, if the type has no grid, the bytes are not of its size or hold too many different numbers
// to be one, or other bytes are set. The same bytes may be set again.
bool set_grid(int type, const void* bytes, size_t size);

// True for a type whose grid was not set yet.
bool lacks_grid(int type);

// A grid as the search for the nearest entry reads it. An entry's numbers are few different ones, its levels; the two
// halves of an entry are numbers whose digits name them, the first number being the highest digit. So the losses of
// all halves are found once, and an entry's is the sum of two of them. Entries are sorted by their halves and stand in
// runs that share the first one, whose loss is added once for all of a run; a short run repeats its last entry.
struct GridTable {
    int levels = 0, runs = 0;
    float level[8] = {};
    uint16_t first_half[512] = {};                      // of each run
    uint16_t second_half[4096] = {}, entry[4096] = {};  // of each place in a run, and which entry is there
    float numbers[2048][8] = {};                        // of each entry
};

// Longer runs where more entries share a half.
constexpr int grid_run_length(int entries) { return entries > 512 ? 8 : 4; }

// Of a type whose grid is set.
const GridTable& grid_table(int type);

}  // namespace torchgguf
