// From the arguments of an instruction to its stages.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plan/operand.h"
#include "plan/problems.h"
#include "plan/stage.h"

namespace torchgguf::plan {

// An instruction as it is recorded. Outputs are the first tensors.
struct Arguments {
    std::string_view name;     // "binary:add"
    std::string_view variant;  // "add"
    std::span<const Operand> tensors;
    std::span<const int64_t> ints;
    std::span<const double> floats;

    // The tensor at `i`; throws std::invalid_argument if it is absent.
    const Operand& tensor(std::size_t i) const;
    // The tensor at `i`, or an absent one.
    Operand optional(std::size_t i) const { return i < tensors.size() ? tensors[i] : Operand{}; }
    int64_t integer(std::size_t i) const;
    int64_t integer(std::size_t i, int64_t otherwise) const { return i < ints.size() ? ints[i] : otherwise; }
    double number(std::size_t i) const;
    double number(std::size_t i, double otherwise) const { return i < floats.size() ? floats[i] : otherwise; }
    // The dimension at `i` of the integers, of a tensor of `ndim` dimensions: from 0 on.
    int dimension(std::size_t i, int ndim) const;

    // Throws std::invalid_argument, which names the instruction.
    [[noreturn]] void refuse(const std::string& problem) const;
    void require(bool holds, const char* problem) const {
        if (!holds) refuse(problem);
    }
};

// Collects the stages of an instruction.
class Builder {
public:
    explicit Builder(const Kernels& kernels) : kernels(kernels) {}

    const Kernels& kernels;

    void add(std::unique_ptr<Stage> stage) { stages.push_back(std::move(stage)); }
    // Reserves a part of the run's scratch memory for this instruction: returns where it begins.
    int64_t scratch(int64_t bytes) {
        const int64_t begin = scratch_bytes;
        scratch_bytes += (bytes + 63) / 64 * 64;
        return begin;
    }

    std::vector<std::unique_ptr<Stage>> stages;
    int64_t scratch_bytes = 0;
};

using Build = void (*)(const Arguments& arguments, Builder& builder);

// How instructions of a name, without their variant, are built; nullptr if there are none.
Build find_build(std::string_view family);

// Loops over `shape`, and streams of tensors in them; all are collapsed as far as the tensors allow.
class LoopNest {
public:
    // `kept`: innermost loops that stay as they are.
    LoopNest(const Arguments& arguments, std::span<const int64_t> shape, std::span<const Operand* const> tensors,
             int kept = 0);

    Loops loops;
    std::vector<Stream> streams;  // of the tensors; absent ones have no data
};

}  // namespace torchgguf::plan
