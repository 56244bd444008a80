// How each type's block is decoded: written once, compiled once for each instruction set.
//
// Sixteen weights share a scale (and perhaps a minimum), and each is a small signed integer, its code, perhaps looked
// up in a table:
//     weight = scale * code - minimum
// The arithmetic is ggml's to the last bit: a product rounded to FP32, then a difference rounded to FP32. Where a
// factor stands elsewhere than in ggml, it is a power of two or the product exact: nothing changes.
//
// The including file opens an unnamed namespace: the linker must not merge a function template compiled for AVX-512
// with its baseline twin. For the same reason nothing of std:: is instantiated here.

template <class Type>
struct Decode;  // one for each type of layouts.h: `block`, or `row` if a block is one number

#include "formats/decode/fp4.inl"
#include "formats/decode/i_quants.inl"
#include "formats/decode/k_quants.inl"
#include "formats/decode/legacy.inl"
#include "formats/decode/plain.inl"
#include "formats/decode/ternary.inl"

template <class Type, class Out>
void decode_row(const uint8_t* src, Out* dst, int64_t n) {
    if constexpr (Type::block_size == 1) {
        Decode<Type>::row(src, dst, n);
    } else {
        for (const Out* end = dst + n; dst < end; src += Type::type_size, dst += Type::block_size) {
            Decode<Type>::block(src, dst);
        }
    }
}

struct DecoderTable {
    Decoder by_id[kTableSize] = {};
    template <class... Types>
    consteval explicit DecoderTable(TypeList<Types...>) {
        ((by_id[Types::id] = {&decode_row<Types, float>, &decode_row<Types, uint16_t>}), ...);
    }
};
