// What this CPU can run. Files named *_avx2.cpp and *_avx512.cpp may be entered only if it says so.
#pragma once

namespace torchgguf {

enum class Isa { scalar, avx2, avx512 };

// The best instruction set that was compiled in and that the CPU and the operating system support.
// avx512 asks for F, BW, VL, DQ and VNNI together (Ice Lake, Zen 4 and later).
Isa best_isa();

// The instruction set in use: the best one, or a lesser one chosen with set_isa (tests, measurements).
Isa active_isa();

// False, and nothing changed, if the CPU lacks it.
bool set_isa(Isa isa);

// True if the CPU multiplies BF16 in hardware (AVX512_BF16 or AMX_BF16).
bool has_native_bf16();

}  // namespace torchgguf
