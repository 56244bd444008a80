#include "isa/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace torchgguf {
namespace {

#if defined(__x86_64__)

enum Register { eax, ebx, ecx, edx };

bool cpuid_bit(unsigned leaf, unsigned subleaf, Register reg, int bit) {
    unsigned regs[4] = {0, 0, 0, 0};
    return __get_cpuid_count(leaf, subleaf, &regs[0], &regs[1], &regs[2], &regs[3]) && (regs[reg] >> bit & 1u);
}

CpuFeatures detect() {
    __builtin_cpu_init();  // accounts for the register state that the operating system saves
    CpuFeatures found = 0;
    const auto add = [&found](CpuFeature feature, bool supported) {
        if (supported) found |= feature;
    };
    add(kAvx2, __builtin_cpu_supports("avx2"));
    add(kFma, __builtin_cpu_supports("fma"));
    add(kF16c, (found & kAvx2) && cpuid_bit(1, 0, ecx, 29));
    add(kBmi2, __builtin_cpu_supports("bmi2"));
    add(kAvx512F, __builtin_cpu_supports("avx512f"));
    add(kAvx512Bw, __builtin_cpu_supports("avx512bw"));
    add(kAvx512Vl, __builtin_cpu_supports("avx512vl"));
    add(kAvx512Dq, __builtin_cpu_supports("avx512dq"));
    add(kAvx512Vnni, __builtin_cpu_supports("avx512vnni"));
    add(kAvx512Bf16, (found & kAvx512F) && cpuid_bit(7, 1, eax, 5));
    add(kAmxBf16, (found & kAvx512F) && cpuid_bit(7, 0, edx, 22));
    return found;
}

#else

CpuFeatures detect() { return 0; }

#endif

}  // namespace

CpuFeatures cpu_features() {
    static const CpuFeatures found = detect();
    return found;
}

bool has_native_bf16() { return cpu_features() & (kAvx512Bf16 | kAmxBf16); }

}  // namespace torchgguf
