#include "recurrence/run.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "isa/registry.h"
#include "parallel.h"

namespace torchgguf {
namespace {

// Tasks a worker takes at a time, so that few and small ones are not handed out one by one.
constexpr int64_t kPartsPerThread = 8;

// What a thread keeps for its next call: more is a long text's, whose gradients need a state for each of its chunks.
constexpr std::size_t kKeptFloats = 4 << 20;

float* workspace(std::vector<float>& memory, int64_t floats) {
    constexpr std::size_t alignment = 64;
    if (memory.size() < floats + alignment / sizeof(float)) memory.assign(floats + alignment / sizeof(float), 0.0f);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return memory.data() + (alignment - address % alignment) % alignment / sizeof(float);
}

template <class Problem>
void run(const Problem& problem, const TaskKernel<Problem>& kernel, int threads) {
    const int64_t tasks = kernel.tasks(problem);
    const int64_t workers = std::clamp<int64_t>(threads, 1, std::max<int64_t>(tasks, 1));
    const int64_t floats = (kernel.workspace(problem) + 15) / 16 * 16;
    static thread_local std::vector<float> kept;
    float* memory = workspace(kept, workers * floats);
    const int64_t part = std::max<int64_t>(1, tasks / (workers * kPartsPerThread));
    std::atomic<int64_t> next{0};
    parallel_for(workers, 1, static_cast<int>(workers), [&](int64_t begin, int64_t end) {
        for (int64_t worker = begin; worker < end; ++worker) {
            for (;;) {
                const int64_t first = next.fetch_add(part, std::memory_order_relaxed);
                if (first >= tasks) break;
                const int64_t last = std::min(first + part, tasks);
                for (int64_t task = first; task < last; ++task) {
                    kernel.compute(problem, task, memory + worker * floats);
                }
            }
        }
    });
    if (kept.size() > kKeptFloats) std::vector<float>().swap(kept);
}

}  // namespace

void delta_rule(const DeltaRule& problem, int threads) { run(problem, find_recurrences().delta_rule, threads); }

void delta_rule_backward(const DeltaRuleBackward& problem, int threads) {
    run(problem, find_recurrences().delta_rule_backward, threads);
}

void state_space_step(const StateSpaceStep& problem, int threads) {
    run(problem, find_recurrences().state_space_step, threads);
}

void selective_scan(const SelectiveScan& problem, int threads) {
    run(problem, find_recurrences().selective_scan, threads);
}

void selective_scan_backward(const SelectiveScanBackward& problem, int threads) {
    run(problem, find_recurrences().selective_scan_backward, threads);
}

void causal_convolution(const CausalConvolution& problem, int threads) {
    run(problem, find_recurrences().causal_convolution, threads);
}

}  // namespace torchgguf
