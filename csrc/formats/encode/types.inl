// How each type's blocks are encoded: written once, compiled once for each instruction set. The torch reference,
// `encode` of the same class in src/torchgguf/quants, does the same operations in the same order.
//
// The including file says how many lanes a vector has and opens an unnamed namespace: the linker must not merge a
// function compiled for AVX-512 with its baseline twin. For the same reason nothing of std:: is instantiated here.

#include "formats/encode/lanes.inl"

constexpr int kRounds = 2;  // see fitting.py

// One for each packed type of layouts.h: `blocks` writes the first `count` of kLanes blocks.
template <class Type>
struct Encode;

#include "formats/encode/search.inl"

#include "formats/encode/grid_search.inl"
#include "formats/encode/writing.inl"

#include "formats/encode/k_quants.inl"
#include "formats/encode/legacy.inl"

#include "formats/encode/fp4.inl"
#include "formats/encode/i_quants.inl"
#include "formats/encode/ternary.inl"

template <class Type>
void encode_blocks(const BlocksToEncode& blocks, uint8_t* dst) {
    for (int64_t first = 0; first < blocks.count; first += kLanes, dst += kLanes * Type::type_size) {
        const int64_t rest = blocks.count - first;
        Tile<Type::block_size> tile(blocks, first);
        const bool weighted = blocks.importance != nullptr;
        Encode<Type>::blocks(tile, weighted, dst, static_cast<int>(rest < kLanes ? rest : kLanes));
    }
}

struct EncoderTable {
    EncodeBlocks by_id[kTableSize] = {};
    template <class... Types>
    consteval explicit EncoderTable(TypeList<Types...>) {
        (add<Types>(), ...);
    }

private:
    template <class Type>
    consteval void add() {  // torch casts to the types that do not pack
        if constexpr (Type::block_size > 1) by_id[Type::id] = &encode_blocks<Type>;
    }
};
