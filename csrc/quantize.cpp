#include "quantize.h"

#include <algorithm>

#include "parallel.h"
#include "quantize_table.h"

namespace torchgguf {
namespace {

EncodeBlocks encoder(int ggml_type, Isa isa) {
    if (!dequantize_row(ggml_type, isa)) return nullptr;  // no such type, or it lacks its grid
#if defined(__x86_64__)
    if (isa == Isa::avx512) return encoders_avx512()[ggml_type];
    if (isa == Isa::avx2) return encoders_avx2()[ggml_type];
#endif
    (void)isa;
    return encoders_scalar()[ggml_type];
}

// About as many weights as are worth handing to another thread; a multiple of every vector of blocks.
constexpr int64_t kWeightsPerChunk = 1 << 13;

}  // namespace

bool quantize_rows(int ggml_type, const float* src, const float* importance, uint8_t* dst, int64_t rows,
                   int64_t n, int threads) {
    const EncodeBlocks encode = encoder(ggml_type, active_isa());
    if (!encode) return false;
    const BlockLayout layout = block_layout(ggml_type);
    const int64_t blocks = rows * (n / layout.block_size);
    parallel_for(blocks, kWeightsPerChunk / layout.block_size, threads, [&](int64_t begin, int64_t end) {
        encode({src + begin * layout.block_size, importance, n, begin, end - begin},
               dst + begin * layout.type_size);
    });
    return true;
}

}  // namespace torchgguf
