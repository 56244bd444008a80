// What this CPU can do. Instruction sets say what they need of it (isa/backend.h).
#pragma once

#include <cstdint>

namespace torchgguf {

using CpuFeatures = uint32_t;

enum CpuFeature : CpuFeatures {
    kAvx2 = 1 << 0,
    kFma = 1 << 1,
    kF16c = 1 << 2,
    kBmi2 = 1 << 3,
    kAvx512F = 1 << 4,
    kAvx512Bw = 1 << 5,
    kAvx512Vl = 1 << 6,
    kAvx512Dq = 1 << 7,
    kAvx512Vnni = 1 << 8,
    kAvx512Bf16 = 1 << 9,
    kAmxBf16 = 1 << 10,
};

// Those that the CPU and the operating system support.
CpuFeatures cpu_features();

// True if the CPU multiplies BF16 in hardware.
bool has_native_bf16();

}  // namespace torchgguf
