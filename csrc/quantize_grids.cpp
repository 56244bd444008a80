#include "quantize_grids.h"

#include <algorithm>
#include <mutex>
#include <set>

#include "dequantize.h"

namespace torchgguf {
namespace {

void fill(GridTable& table, const void* grid, int entries, int dim) {
    const auto* numbers = static_cast<const int8_t*>(grid);
    const std::set<int8_t> levels(numbers, numbers + entries * dim);
    table.entries = entries;
    table.dim = dim;
    table.levels = static_cast<int>(levels.size());
    std::copy(levels.begin(), levels.end(), table.level);
    const auto digits = [&](const int8_t* from) {
        int number = 0;
        for (int i = dim / 2; i-- > 0;) {
            const auto digit = std::distance(levels.begin(), levels.find(from[i]));
            number = number * table.levels + static_cast<int>(digit);
        }
        return static_cast<uint16_t>(number);
    };
    for (int e = 0; e < entries; ++e) {
        const int8_t* entry = numbers + e * dim;
        table.low[e] = digits(entry);
        table.high[e] = digits(entry + dim / 2);
        std::copy(entry, entry + dim, table.numbers[e]);
    }
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
