#include "linear.h"

#include <algorithm>
#include <vector>

#include "isa/registry.h"
#include "parallel.h"

namespace torchgguf {
namespace {

// Waking a thread costs microseconds: below this many packed bytes for each, one does the work faster.
constexpr int64_t kBytesPerThread = 32 * 1024;
// Chunks a thread: enough that a slow core does not hold up the others, few enough to be cheap to hand out.
constexpr int64_t kChunksPerThread = 8;

// Activations are prepared here and dropped with the call; the memory stays with the thread for the next one.
uint8_t* workspace(int64_t bytes) {
    constexpr std::size_t alignment = 64;
    static thread_local std::vector<uint8_t> memory;
    if (memory.size() < bytes + alignment) memory.resize(bytes + alignment);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return memory.data() + (alignment - address % alignment) % alignment;
}

}  // namespace

bool linear(const LinearProblem& problem, int threads) {
    const LinearKernel* kernel = find_linear(problem.type);
    if (!kernel) return false;
    uint8_t* prepared = workspace(kernel->workspace_bytes(problem.in_features, problem.rows));
    kernel->prepare(problem, prepared);

    const int64_t packed_bytes = problem.out_features * problem.row_bytes;
    const int64_t useful = std::max<int64_t>(1, packed_bytes / kBytesPerThread);
    threads = static_cast<int>(std::clamp<int64_t>(threads, 1, useful));
    const int64_t chunk = std::max<int64_t>(4, problem.out_features / (threads * kChunksPerThread));
    parallel_for(problem.out_features, chunk, threads,
                 [&](int64_t begin, int64_t end) { kernel->compute(problem, prepared, begin, end); });
    return true;
}

}  // namespace torchgguf
