#include "dequantize.h"

#include "formats/layouts.h"
#include "isa/registry.h"
#include "parallel.h"

namespace torchgguf {
namespace {

// About as many weights as are worth a thread's turn.
constexpr int64_t kWeightsPerChunk = 1 << 15;

// `source_row` maps a row of `dst` to one of `src`.
template <class Decode, class Out, class RowIndex>
bool decode_rows(Decode decode, int type, const uint8_t* src, Out* dst, int64_t rows, int64_t n, int threads,
                 RowIndex source_row) {
    if (!decode) return false;
    const BlockSize block = kBlockSizes.by_id[type];
    const int64_t row_bytes = n / block.weights * block.bytes;
    parallel_for(rows, kWeightsPerChunk / (n + 1) + 1, threads, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) decode(src + source_row(row) * row_bytes, dst + row * n, n);
    });
    return true;
}

template <class RowIndex>
bool decode_rows(int type, const uint8_t* src, void* dst, int64_t rows, int64_t n, OutputKind kind, int threads,
                 RowIndex source_row) {
    if (kind == OutputKind::bf16) {
        auto* out = static_cast<uint16_t*>(dst);
        return decode_rows(find_decoder_to_bf16(type), type, src, out, rows, n, threads, source_row);
    }
    auto* out = static_cast<float*>(dst);
    return decode_rows(find_decoder_to_f32(type), type, src, out, rows, n, threads, source_row);
}

}  // namespace

bool dequantize_rows(int type, const uint8_t* src, void* dst, int64_t rows, int64_t n, OutputKind kind, int threads) {
    return decode_rows(type, src, dst, rows, n, kind, threads, [](int64_t row) { return row; });
}

bool embedding_rows(int type, const uint8_t* src, const int64_t* indices, int64_t count, void* dst, int64_t n,
                    OutputKind kind, int threads) {
    const auto named_row = [indices](int64_t row) { return indices[row]; };
    return decode_rows(type, src, dst, count, n, kind, threads, named_row);
}

}  // namespace torchgguf
