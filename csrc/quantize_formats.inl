// How each type's blocks are encoded: written once, compiled once for each instruction set. The torch
// reference, `encode` of the same class in src/torchgguf/quants, does the same operations in the same order.
//
// The including file says how many lanes a vector has and opens an unnamed namespace: a function compiled for
// AVX-512 must not be merged by the linker with its baseline twin. For the same reason nothing of std:: is
// instantiated here.

#include "quantize_lanes.inl"

constexpr int kRounds = 2;  // see fitting.py

template <int Id, int BlockSize, int TypeSize>
struct Encoder {
    static constexpr int id = Id, block_size = BlockSize, type_size = TypeSize;
};

#include "quantize_search.inl"
#include "quantize_legacy.inl"
#include "quantize_k_quants.inl"
#include "quantize_fp4.inl"
#include "quantize_ternary.inl"
#include "quantize_grid_search.inl"
#include "quantize_i_quants.inl"

template <class Type>
void encode_blocks(const BlocksToEncode& blocks, uint8_t* dst) {
    for (int64_t first = 0; first < blocks.count; first += kLanes, dst += kLanes * Type::type_size) {
        const int64_t rest = blocks.count - first;
        Tile<Type::block_size> tile(blocks, first);
        const bool weighted = blocks.importance != nullptr;
        Type::encode(tile, weighted, dst, static_cast<int>(rest < kLanes ? rest : kLanes));
    }
}

template <class... Types>
struct EncoderTable {
    EncodeBlocks by_id[kGgmlTypes] = {};
    constexpr EncoderTable() { ((by_id[Types::id] = &encode_blocks<Types>), ...); }
};

using AllEncoders = EncoderTable<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS,
                                 MXFP4, NVFP4, TQ1_0, TQ2_0, Q1_0, Q2_0, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS,
                                 IQ3_S, IQ1_S, IQ1_M>;
