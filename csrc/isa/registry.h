// The instruction sets that this program was compiled for, and the one in use.
#pragma once

#include <span>
#include <string>

#include "isa/backend.h"

namespace torchgguf {

// Those that the CPU and the operating system support, the best one last.
std::span<const Backend* const> backends();

// The one in use: the best one, or the one that was chosen with use_backend.
const Backend& active_backend();

// Throws std::invalid_argument, which names the choices, if `name` is not among backends(). `source` says where the
// name comes from.
void use_backend(const std::string& name, const char* source);

// What the instruction set in use has for a type, or the first of its bases that has it; nullptr if no tensor has the
// type, or if its grid is missing (see grids.h).
const LinearKernel* find_linear(int type);
decltype(Decoder::to_f32) find_decoder_to_f32(int type);
decltype(Decoder::to_bf16) find_decoder_to_bf16(int type);
EncodeBlocks find_encoder(int type);

// What the instruction set in use has for recurrences, or the first of its bases.
const RecurrenceKernels& find_recurrences();

// The same for the instructions of plans.
const plan::Kernels& find_plan_kernels();

}  // namespace torchgguf
