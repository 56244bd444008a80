#include "cpu_features.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace torchgguf {
namespace {

#if defined(__x86_64__)
bool cpuid_bit(unsigned leaf, unsigned subleaf, int reg, int bit) {
    unsigned regs[4] = {0, 0, 0, 0};
    return __get_cpuid_count(leaf, subleaf, &regs[0], &regs[1], &regs[2], &regs[3]) &&
           (regs[reg] >> bit & 1u);
}
#endif

Isa detect() {
#if defined(__x86_64__)
    __builtin_cpu_init();  // accounts for the register state that the operating system saves
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2") && cpuid_bit(1, 0, 2, 29);  // F16C
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
    if (avx512) return Isa::avx512;
    if (avx2) return Isa::avx2;
#endif
    return Isa::scalar;
}

std::atomic<Isa>& active() {
    static std::atomic<Isa> isa{best_isa()};
    return isa;
}

}  // namespace

Isa best_isa() {
    static const Isa isa = detect();
    return isa;
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

bool set_isa(Isa isa) {
    if (isa > best_isa()) return false;
    active().store(isa, std::memory_order_relaxed);
    return true;
}

bool has_native_bf16() {
#if defined(__x86_64__)
    const bool avx512_bf16 = best_isa() == Isa::avx512 && cpuid_bit(7, 1, 0, 5);
    const bool amx_bf16 = best_isa() == Isa::avx512 && cpuid_bit(7, 0, 3, 22);
    return avx512_bf16 || amx_bf16;
#else
    return false;
#endif
}

}  // namespace torchgguf
