// Running the stages of a program on several threads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "plan/stage.h"

namespace torchgguf::plan {

// Runs all stages. If `nanoseconds` is not empty, adds to each number how long its stage took.
void run_stages(const std::vector<std::unique_ptr<Stage>>& stages, Run& run, std::vector<int64_t>* nanoseconds);

}  // namespace torchgguf::plan
