#include "plan/program.h"

#include <algorithm>
#include <stdexcept>

#include "isa/registry.h"
#include "plan/builder.h"
#include "plan/team.h"

namespace torchgguf::plan {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr int kMaxThreads = 1024;

}  // namespace

void Program::add(const std::string& name, std::span<const Operand> tensors, std::span<const int64_t> ints,
                  std::span<const double> floats) {
    const std::size_t colon = std::min(name.find(':'), name.size());
    const std::string_view whole = name, family = whole.substr(0, colon);
    const std::string_view variant = whole.substr(std::min(colon + 1, name.size()));
    const Arguments arguments{name, variant, tensors, ints, floats};
    const Build build = find_build(family);
    if (!build) arguments.refuse("there is no such instruction");
    for (const Operand& tensor : tensors) {
        const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
        arguments.require(address % static_cast<std::size_t>(item_size(tensor.dtype)) == 0, "a tensor is not aligned");
    }
    Builder builder(find_plan_kernels());
    build(arguments, builder);
    for (auto& stage : builder.stages) {
        stages_.push_back(std::move(stage));
        instruction_of_.push_back(names_.size());
    }
    names_.push_back(name);
    scratch_bytes_ = std::max(scratch_bytes_, builder.scratch_bytes);
}

void Program::run(int threads, std::vector<int64_t>* nanoseconds) {
    if (running_.exchange(true, std::memory_order_acquire)) throw std::runtime_error("the program is running already");
    struct Guard {
        std::atomic<bool>& running;
        ~Guard() { running.store(false, std::memory_order_release); }
    } guard{running_};
    const std::size_t needed = static_cast<std::size_t>(scratch_bytes_) + kAlignment;
    if (scratch_.size() < needed) scratch_.resize(needed);
    const auto address = reinterpret_cast<std::uintptr_t>(scratch_.data());
    Run run;
    run.threads = std::clamp(threads, 1, kMaxThreads);
    run.scratch = scratch_.data() + (kAlignment - address % kAlignment) % kAlignment;
    run_stages(stages_, run, nanoseconds);
    if (const char* failure = run.failure.load()) throw std::runtime_error(failure);
}

std::vector<std::pair<std::string, int64_t>> Program::profile(int threads) {
    std::vector<int64_t> of_stages(stages_.size(), 0);
    run(threads, &of_stages);
    std::vector<std::pair<std::string, int64_t>> result;
    for (const std::string& name : names_) result.emplace_back(name, 0);
    for (std::size_t i = 0; i < stages_.size(); ++i) result[instruction_of_[i]].second += of_stages[i];
    return result;
}

}  // namespace torchgguf::plan
