#include "grids.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>

namespace torchgguf {

Grids grids;

namespace {

struct Slot {
    int type;
    GridShape shape;
    void* numbers;
    bool is_set = false;

    template <class Type, class Numbers>
    constexpr Slot(Type, Numbers& grid) : type(Type::id), shape(Type::grid), numbers(grid) {
        static_assert(sizeof grid == Type::grid.entries * Type::grid.dim);
    }
    size_t size() const { return static_cast<size_t>(shape.entries) * shape.dim; }
    // How many different numbers a grid may hold, so that the numbers of its halves fit GridTable.
    size_t most_levels() const { return shape.dim == 4 ? 8 : 3; }
};

constinit Slot slots[] = {
    {IQ2_XXS{}, grids.iq2_xxs}, {IQ2_XS{}, grids.iq2_xs}, {IQ3_XXS{}, grids.iq3_xxs}, {IQ1_S{}, grids.iq1},
    {IQ3_S{}, grids.iq3_s},     {IQ2_S{}, grids.iq2_s},   {IQ1_M{}, grids.iq1},
};

Slot* find_slot(int type) {
    for (Slot& slot : slots) {
        if (slot.type == type) return &slot;
    }
    return nullptr;
}

void fill(GridTable& table, const void* grid, GridShape shape) {
    const auto [entries, dim] = shape;
    const auto* numbers = static_cast<const int8_t*>(grid);
    const std::set<int8_t> levels(numbers, numbers + entries * dim);
    table.levels = static_cast<int>(levels.size());
    std::copy(levels.begin(), levels.end(), table.level);
    const auto half = [&, dim = dim](int entry, int second) {  // the first number is the highest digit
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

bool set_grid(int type, const void* bytes, size_t size) {
    Slot* slot = find_slot(type);
    if (!slot || slot->size() != size) return false;
    // Kernels read a grid without a lock: once set, it stays. IQ1_S and IQ1_M share one.
    const bool is_set = std::ranges::any_of(
        slots, [slot](const Slot& other) { return other.is_set && other.numbers == slot->numbers; });
    if (is_set && std::memcmp(slot->numbers, bytes, size) != 0) return false;
    if (is_set) return slot->is_set = true;
    const auto* numbers = static_cast<const int8_t*>(bytes);
    if (std::set<int8_t>(numbers, numbers + size).size() > slot->most_levels()) return false;
    std::memcpy(slot->numbers, bytes, size);
    return slot->is_set = true;
}

bool lacks_grid(int type) {
    const Slot* slot = find_slot(type);
    return slot && !slot->is_set;
}

const GridTable& grid_table(int type) {
    static GridTable tables[std::size(slots)];
    static std::once_flag is_filled[std::size(slots)];
    const Slot* slot = find_slot(type);
    const auto i = slot - slots;
    std::call_once(is_filled[i], [&] { fill(tables[i], slot->numbers, slot->shape); });
    return tables[i];
}

}  // namespace torchgguf
