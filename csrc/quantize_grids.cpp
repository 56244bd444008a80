#include "quantize_grids.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "dequantize.h"

namespace torchgguf {
namespace {

void fill(GridTable& table, const void* grid, int entries, int dim) {
    const auto* numbers = static_cast<const int8_t*>(grid);
    const std::set<int8_t> levels(numbers, numbers + entries * dim);
    table.levels = static_cast<int>(levels.size());
    std::copy(levels.begin(), levels.end(), table.level);
    const auto half = [&](int entry, int second) {  // the first number is the highest digit
        const int8_t* from = numbers + entry * dim + second * (dim / 2);
        int number = 0;
        for (int i = 0; i < dim / 2; ++i) {
            const auto digit = std::distance(levels.begin(), levels.find(from[i]));
            number = number * table.levels + static_cast<int>(digit);
        }
        return static_cast<uint16_t>(number);
    };
    std::map<uint16_t, std::map<uint16_t, int>> sorted;
    for (int e = 0; e < entries; ++e) {
        sorted[half(e, 0)][half(e, 1)] = e;
        std::copy_n(numbers + e * dim, dim, table.numbers[e]);
    }
    const int length = grid_run_length(entries);
    int at = 0;
    for (const auto& [first, rest] : sorted) {
        for (const auto& [second, entry] : rest) {
            table.first_half[at / length] = first;
            table.second_half[at] = second;
            table.entry[at++] = static_cast<uint16_t>(entry);
        }
        for (; at % length; ++at) {
            table.second_half[at] = table.second_half[at - 1];
            table.entry[at] = table.entry[at - 1];
        }
    }
    table.runs = at / length;
}

}  // namespace

const GridTable& grid_table(int ggml_type) {
    static const struct {
        int ggml_type;
        const void* grid;
        int entries, dim;
    } kGrids[] = {
        {16, grids.iq2_xxs, 256, 8}, {17, grids.iq2_xs, 512, 8}, {18, grids.iq3_xxs, 256, 4},
        {19, grids.iq1, 2048, 8},    {21, grids.iq3_s, 512, 4},  {22, grids.iq2_s, 1024, 8},
        {29, grids.iq1, 2048, 8},
    };
    constexpr int kCount = 7;
    static GridTable tables[kCount];
    static std::once_flag filled[kCount];
    int i = 0;
    while (kGrids[i].ggml_type != ggml_type) ++i;
    std::call_once(filled[i], [i] { fill(tables[i], kGrids[i].grid, kGrids[i].entries, kGrids[i].dim); });
    return tables[i];
}

}  // namespace torchgguf
