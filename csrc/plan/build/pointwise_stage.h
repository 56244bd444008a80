// The stage that computes a function element by element; other instructions copy and convert with it.
#pragma once

#include "plan/builder.h"

namespace torchgguf::plan {

class PointwiseStage : public Stage {
public:
    PointwiseStage(const Kernels& kernels, const Pointwise& problem);

    int64_t begin(Run&) override { return chunks_; }
    void compute(int64_t chunk, Run&) override;

private:
    const Kernels& kernels_;
    Pointwise problem_;
    float numbers_[kMaxInputs] = {};  // inputs that are numbers: their streams read them here
    int64_t integer_numbers_[kMaxInputs] = {};
    int64_t runs_, runs_of_chunk_, chunks_;

    friend void add_pointwise(const Arguments&, Builder&, Function, std::span<const Operand* const>, bool,
                              std::span<const double>, std::span<const double>);
};

// Adds out = function(inputs): tensors are out, then the inputs, broadcast. An absent input is the number of its place
// in `numbers`. `integers`: in int64.
void add_pointwise(const Arguments& arguments, Builder& builder, Function function,
                   std::span<const Operand* const> tensors, bool integers, std::span<const double> parameters = {},
                   std::span<const double> numbers = {});

// Adds to <- from, broadcast and converted.
void add_copy(const Arguments& arguments, Builder& builder, const Operand& to, const Operand& from);

}  // namespace torchgguf::plan
