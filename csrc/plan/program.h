// A recorded program: instructions on memory that stays where it is, computed without a look at anything else.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plan/operand.h"
#include "plan/stage.h"

namespace torchgguf::plan {

class Program {
public:
    // Appends an instruction, `name` being that of a family in instructions.cpp, and perhaps ":" and a variant.
    // Throws std::invalid_argument, which names what is not supported, and changes nothing then.
    void add(const std::string& name, std::span<const Operand> tensors, std::span<const int64_t> ints,
             std::span<const double> floats);

    // Computes all instructions. Throws std::runtime_error if an index was outside of its tensor, or if the program
    // is running already.
    void run(int threads) { run(threads, nullptr); }

    // The same; returns each instruction's name and how many nanoseconds it took.
    std::vector<std::pair<std::string, int64_t>> profile(int threads);

    std::size_t size() const { return names_.size(); }

private:
    void run(int threads, std::vector<int64_t>* nanoseconds);

    std::vector<std::string> names_;
    std::vector<std::unique_ptr<Stage>> stages_;
    std::vector<std::size_t> instruction_of_;  // of each stage
    std::vector<uint8_t> scratch_;
    int64_t scratch_bytes_ = 0;
    std::atomic<bool> running_{false};
};

}  // namespace torchgguf::plan
