// How each type's block is laid out and decoded: written once, compiled once for each instruction set.
//
// Every packed type is the same thing in another wrapping: sixteen weights share a scale (and perhaps a
// minimum), and each is a small signed integer, its code, perhaps looked up in a table:
//     weight = scale * code - minimum
// The arithmetic is ggml's to the last bit: a product rounded to FP32, then a difference rounded to FP32.
// Where a factor stands elsewhere than in ggml, it is a power of two or the product exact: nothing changes.
//
// The layouts (ggml-common.h of ggml) are noted field by field. A half is an FP16 number, by which the block
// is scaled unless said otherwise; nibbles and crumbs are fields of 4 and 2 bits, all bytes' low ones first.
//
// The including file opens an unnamed namespace: a function template compiled for AVX-512 must not be merged
// by the linker with its baseline twin. For the same reason nothing of std:: is instantiated here.

template <int Id, int BlockSize, int TypeSize>
struct Format {
    static constexpr int id = Id, block_size = BlockSize, type_size = TypeSize;
};

#include "block_parts.inl"
#include "dequantize_plain.inl"
#include "dequantize_legacy.inl"
#include "dequantize_ternary.inl"
#include "dequantize_k_quants.inl"
#include "dequantize_fp4.inl"
#include "dequantize_i_quants.inl"

template <class Type, class Out>
void decode_row(const uint8_t* src, Out* dst, int64_t n) {
    if constexpr (Type::block_size == 1) {
        Type::decode_row(src, dst, n);
    } else {
        for (const Out* end = dst + n; dst < end; src += Type::type_size, dst += Type::block_size) {
            Type::decode(src, dst);
        }
    }
}

template <class... Types>
struct DecoderTable {
    Decoder by_id[kGgmlTypes] = {};
    constexpr DecoderTable() {
        ((by_id[Types::id] = {{Types::block_size, Types::type_size},
                              &decode_row<Types, float>,
                              &decode_row<Types, uint16_t>}),
         ...);
    }
};

// Types whose scales are FP16 (or E4M3): no weight is a subnormal FP32 number.
template <class... More>
using DecodersOfScaledAnd =
    DecoderTable<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q1_0, Q2_0, TQ1_0, TQ2_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, NVFP4,
                 IQ4_NL, IQ4_XS, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ1_S, IQ1_M, More...>;
using ScaledDecoders = DecodersOfScaledAnd<>;
using AllDecoders = DecodersOfScaledAnd<F32, F16, BF16, F64, I8, I16, I32, I64, MXFP4>;
