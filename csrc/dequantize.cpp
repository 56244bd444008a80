#include "dequantize.h"

#include <cstring>

#include "dequantize_table.h"
#include "parallel.h"

namespace torchgguf {

Grids grids;

namespace {

struct GridSlot {
    int ggml_type;
    void* entries;
    size_t size;
    bool filled = false;
};

GridSlot grid_slots[] = {
    {16, grids.iq2_xxs, sizeof grids.iq2_xxs}, {17, grids.iq2_xs, sizeof grids.iq2_xs},
    {18, grids.iq3_xxs, sizeof grids.iq3_xxs}, {19, grids.iq1, sizeof grids.iq1},
    {21, grids.iq3_s, sizeof grids.iq3_s},     {22, grids.iq2_s, sizeof grids.iq2_s},
    {29, grids.iq1, sizeof grids.iq1},
};

bool lacks_grid(int ggml_type) {
    for (const auto& slot : grid_slots) {
        if (slot.ggml_type == ggml_type) return !slot.filled;
    }
    return false;
}

Decoder decoder(int ggml_type, Isa isa) {
    if (ggml_type < 0 || ggml_type >= kGgmlTypes || lacks_grid(ggml_type)) return {};
#if defined(__x86_64__)
    static const bool rounds_to_bf16 = __builtin_cpu_supports("avx512bf16");
    if (isa == Isa::avx512 && rounds_to_bf16) {
        if (const Decoder& found = decoders_avx512_bf16()[ggml_type]; found.to_f32) return found;
    }
    if (isa == Isa::avx512) return decoders_avx512()[ggml_type];
    if (isa == Isa::avx2) return decoders_avx2()[ggml_type];
#endif
    (void)isa;
    return decoders_scalar()[ggml_type];
}

// About as many weights as are worth handing to another thread.
constexpr int64_t kWeightsPerChunk = 1 << 15;

// Calls decode(row) for each of `rows` rows, on several threads.
template <class Decode>
void for_each_row(int64_t rows, int64_t n, int threads, Decode decode) {
    parallel_for(rows, kWeightsPerChunk / (n + 1) + 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) decode(row);
    });
}

template <class RowIndex>
bool decode_rows(int ggml_type, const uint8_t* src, void* dst, int64_t rows, int64_t n, OutputKind kind,
                 int threads, RowIndex source_row) {
    const Decoder decoder = torchgguf::decoder(ggml_type, active_isa());
    if (!decoder.to_f32) return false;
    const int64_t row_bytes = decoder.layout.bytes(n);
    if (kind == OutputKind::bf16) {
        for_each_row(rows, n, threads, [&](int64_t row) {
            decoder.to_bf16(src + source_row(row) * row_bytes, static_cast<uint16_t*>(dst) + row * n, n);
        });
    } else {
        for_each_row(rows, n, threads, [&](int64_t row) {
            decoder.to_f32(src + source_row(row) * row_bytes, static_cast<float*>(dst) + row * n, n);
        });
    }
    return true;
}

}  // namespace

DequantizeRow dequantize_row(int ggml_type, Isa isa) { return decoder(ggml_type, isa).to_f32; }

BlockLayout block_layout(int ggml_type) {
    if (ggml_type < 0 || ggml_type >= kGgmlTypes) return {};
    return decoders_scalar()[ggml_type].layout;
}

bool set_grid(int ggml_type, const void* bytes, size_t size) {
    for (auto& slot : grid_slots) {
        if (slot.ggml_type != ggml_type || slot.size != size) continue;
        std::memcpy(slot.entries, bytes, size);
        return slot.filled = true;
    }
    return false;
}

bool dequantize_rows(int ggml_type, const uint8_t* src, void* dst, int64_t rows, int64_t n, OutputKind kind,
                     int threads) {
    return decode_rows(ggml_type, src, dst, rows, n, kind, threads, [](int64_t row) { return row; });
}

bool embedding_rows(int ggml_type, const uint8_t* src, const int64_t* indices, int64_t count, void* dst,
                    int64_t n, OutputKind kind, int threads) {
    const auto named_row = [indices](int64_t row) { return indices[row]; };
    return decode_rows(ggml_type, src, dst, count, n, kind, threads, named_row);
}

}  // namespace torchgguf
