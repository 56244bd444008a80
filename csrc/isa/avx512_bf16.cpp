// AVX-512 that rounds to BF16 in one instruction (AVX512_BF16: Zen 4, Sapphire Rapids and later). The instruction
// replaces subnormal numbers by zero, so only types whose weights are never so small use it.
#define TORCHGGUF_AVX512_BF16
#include <immintrin.h>

#include "grids.h"
#include "isa/backend.h"

namespace torchgguf {

extern const Backend avx512;

namespace {

#include "isa/bytes.inl"
#include "isa/x86.inl"

#include "isa/avx512_floats.inl"

#include "formats/parts.inl"

#include "formats/decode/types.inl"

// Scales that are powers of two, and plain numbers, may be as small as FP32 goes.
template <class Type>
consteval bool may_be_subnormal() {
    for (const Field& field : Type::fields) {
        if (field.kind == Kind::e8m0) return true;
    }
    return Type::block_size == 1;
}

struct RoundingTable {
    Decoder by_id[kTableSize] = {};
    template <class... Types>
    consteval explicit RoundingTable(TypeList<Types...>) {
        (add<Types>(), ...);
    }

private:
    template <class Type>
    consteval void add() {
        if constexpr (!may_be_subnormal<Type>()) by_id[Type::id].to_bf16 = &decode_row<Type, uint16_t>;
    }
};
constexpr RoundingTable kDecoders(AllTypes{});

}  // namespace

extern const Backend avx512_bf16 = {
    .name = "avx512_bf16",
    .needs = kAvx2 | kFma | kF16c | kBmi2 | kAvx512F | kAvx512Bw | kAvx512Vl | kAvx512Dq | kAvx512Vnni | kAvx512Bf16,
    .base = &avx512,
    .decoders = kDecoders.by_id,
};

}  // namespace torchgguf
