#include "quantize.h"

#include "formats/layouts.h"
#include "isa/registry.h"
#include "parallel.h"

namespace torchgguf {
namespace {

// About as many weights as are worth a thread's turn; a multiple of every vector of blocks.
constexpr int64_t kWeightsPerChunk = 1 << 13;

}  // namespace

bool quantize_rows(int type, const float* src, const float* importance, uint8_t* dst, int64_t rows, int64_t n,
                   int threads) {
    const EncodeBlocks encode = find_encoder(type);
    if (!encode) return false;
    const BlockSize block = kBlockSizes.by_id[type];
    const int64_t blocks = rows * (n / block.weights);
    parallel_for(blocks, kWeightsPerChunk / block.weights, threads, [&](int64_t begin, int64_t end) {
        encode({src + begin * block.weights, importance, n, begin, end - begin}, dst + begin * block.bytes);
    });
    return true;
}

}  // namespace torchgguf
