// The block layout of each GGUF type: the one table that decoding, encoding, dot products and, exported by
// python/bind_layouts.cpp, kernels in other languages read. The layouts are those of ggml-common.h of ggml.
//
// A block stores `block_size` weights in `type_size` bytes, little-endian, at any alignment. Most types are the same
// thing in another wrapping. Each weight has a code, a small integer; a group of weights shares a scale, and perhaps a
// minimum:
//     weight = d * scale * (code - zero) - dmin * minimum
// `d` scales the block; types without `scales` have one group. `m` (Q4_1, Q5_1) is an offset that is added.
// Where a code is longer than a field, `high` stores its higher bits, from bit `shift` on.
#pragma once

#include <cstdint>

namespace torchgguf {

enum class Kind : uint8_t { f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, e8m0, ue4m3, codes };

constexpr const char* kKindNames[] = {"f16", "bf16", "f32", "f64", "i8",   "i16",   "i32",
                                      "i64", "u8",   "u16", "u32", "e8m0", "ue4m3", "codes"};
constexpr int kKindBytes[] = {2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 1, 1, 1};

// `count` numbers, the first `at` bytes behind the begin of the block and each `step` bytes behind the one before.
//
// Fields of codes pack 8 / bits of them in a byte. Their bytes come in runs of `run`: a run holds first the codes in
// the lowest bits of its bytes, one after the other, then those in the next higher bits, and so on. So with
// per_byte = 8 / bits, code i is in byte  i / (run * per_byte) * run + i % run  from bit  i / run % per_byte * bits on.
struct Field {
    char name[16];
    Kind kind;
    int at;
    int count;
    int step = 0;
    int bits = 0, run = 0;  // codes only
    int shift = 0;          // where these bits belong in the whole code
    uint8_t zero = 0;       // the code that stands for zero

    constexpr int bytes() const { return kind == Kind::codes ? count * bits / 8 : kKindBytes[static_cast<int>(kind)]; }
};

// Nothing here is compiled into the program but the constants: files of several instruction sets include this one.
consteval Field numbers(const char* name, Kind kind, int at, int count = 1, int step = 0) {
    Field field{{}, kind, at, count, step ? step : kKindBytes[static_cast<int>(kind)]};
    for (int i = 0; name[i]; ++i) field.name[i] = name[i];
    return field;
}
consteval Field half_at(const char* name, int at) { return numbers(name, Kind::f16, at); }

struct Packing {
    int bits, count, run, shift = 0;
    uint8_t zero = 0;
};
consteval Field codes(const char* name, int at, Packing packing) {
    Field field = numbers(name, Kind::codes, at, packing.count);
    field.bits = packing.bits;
    field.run = packing.run;
    field.shift = packing.shift;
    field.zero = packing.zero;
    return field;
}

template <int Id, int BlockSize, int TypeSize>
struct Layout {
    static constexpr int id = Id, block_size = BlockSize, type_size = TypeSize;
};

// Entries of a codebook, each of `dim` signed bytes.
struct GridShape {
    int entries, dim;
};

struct Q4_0 : Layout<2, 32, 18> {
    static constexpr char name[] = "Q4_0";
    static constexpr Field d = half_at("d", 0), quants = codes("quants", 2, {4, 32, 16, 0, 8});
    static constexpr Field fields[] = {d, quants};
};
struct Q4_1 : Layout<3, 32, 20> {
    static constexpr char name[] = "Q4_1";
    static constexpr Field d = half_at("d", 0), m = half_at("m", 2), quants = codes("quants", 4, {4, 32, 16});
    static constexpr Field fields[] = {d, m, quants};
};
struct Q5_0 : Layout<6, 32, 22> {
    static constexpr char name[] = "Q5_0";
    static constexpr Field d = half_at("d", 0), high = codes("high", 2, {1, 32, 1, 4}),
                           quants = codes("quants", 6, {4, 32, 16, 0, 16});
    static constexpr Field fields[] = {d, high, quants};
};
struct Q5_1 : Layout<7, 32, 24> {
    static constexpr char name[] = "Q5_1";
    static constexpr Field d = half_at("d", 0), m = half_at("m", 2), high = codes("high", 4, {1, 32, 1, 4}),
                           quants = codes("quants", 8, {4, 32, 16});
    static constexpr Field fields[] = {d, m, high, quants};
};
struct Q8_0 : Layout<8, 32, 34> {
    static constexpr char name[] = "Q8_0";
    static constexpr Field d = half_at("d", 0), quants = numbers("quants", Kind::i8, 2, 32);
    static constexpr Field fields[] = {d, quants};
};

// The first 16 of `scales` are scales, the others minima.
struct Q2_K : Layout<10, 256, 84> {
    static constexpr char name[] = "Q2_K";
    static constexpr Field scales = codes("scales", 0, {4, 32, 16}), quants = codes("quants", 16, {2, 256, 32}),
                           d = half_at("d", 80), dmin = half_at("dmin", 82);
    static constexpr Field fields[] = {scales, quants, d, dmin};
};
struct Q3_K : Layout<11, 256, 110> {
    static constexpr char name[] = "Q3_K";
    static constexpr Field high = codes("high", 0, {1, 256, 32, 2}), quants = codes("quants", 32, {2, 256, 32, 0, 4}),
                           scales = codes("scales", 96, {4, 16, 8, 0, 32}),
                           scales_high = codes("scales_high", 104, {2, 16, 4, 4}), d = half_at("d", 108);
    static constexpr Field fields[] = {high, quants, scales, scales_high, d};
};
// The 12 bytes of `scales` are three words of four bytes a, b, c. Of eight scales and eight minima of six bits, scales
// 0-3 are the low six bits of the bytes of a, minima 0-3 those of b; scales 4-7 are the low nibbles of c below the two
// high bits of a, minima 4-7 the high nibbles of c below the two high bits of b.
struct Q4_K : Layout<12, 256, 144> {
    static constexpr char name[] = "Q4_K";
    static constexpr Field d = half_at("d", 0), dmin = half_at("dmin", 2), scales = numbers("scales", Kind::u8, 4, 12),
                           quants = codes("quants", 16, {4, 256, 32});
    static constexpr Field fields[] = {d, dmin, scales, quants};
};
struct Q5_K : Layout<13, 256, 176> {  // scales as in Q4_K
    static constexpr char name[] = "Q5_K";
    static constexpr Field d = half_at("d", 0), dmin = half_at("dmin", 2), scales = numbers("scales", Kind::u8, 4, 12),
                           high = codes("high", 16, {1, 256, 32, 4}), quants = codes("quants", 48, {4, 256, 32});
    static constexpr Field fields[] = {d, dmin, scales, high, quants};
};
struct Q6_K : Layout<14, 256, 210> {
    static constexpr char name[] = "Q6_K";
    static constexpr Field quants = codes("quants", 0, {4, 256, 64, 0, 32}), high = codes("high", 128, {2, 256, 32, 4}),
                           scales = numbers("scales", Kind::i8, 192, 16), d = half_at("d", 208);
    static constexpr Field fields[] = {quants, high, scales, d};
};

// The I-quants look codes up in a grid, `grid.dim` at a time. `entries` are the places in the grid (or their low
// bits); of a sign, one is minus. Scales count half steps: 2 * scale + 1.

// For each 32 weights four entries of a byte, then a word: four times seven signs (an eighth makes the number of
// minus signs even) and four bits of scale.
struct IQ2_XXS : Layout<16, 256, 66> {
    static constexpr char name[] = "IQ2_XXS";
    static constexpr GridShape grid{256, 8};
    static constexpr Field d = half_at("d", 0), entries = numbers("entries", Kind::u32, 2, 8, 8),
                           signs_scales = numbers("signs_scales", Kind::u32, 6, 8, 8);
    static constexpr Field fields[] = {d, entries, signs_scales};
};
struct IQ2_XS : Layout<17, 256, 74> {  // an entry: nine bits, below seven signs
    static constexpr char name[] = "IQ2_XS";
    static constexpr GridShape grid{512, 8};
    static constexpr Field d = half_at("d", 0), entries = numbers("entries", Kind::u16, 2, 32),
                           scales = codes("scales", 66, {4, 16, 1});
    static constexpr Field fields[] = {d, entries, scales};
};
struct IQ2_S : Layout<22, 256, 82> {
    static constexpr char name[] = "IQ2_S";
    static constexpr GridShape grid{1024, 8};
    static constexpr Field d = half_at("d", 0), entries = numbers("entries", Kind::u8, 2, 32),
                           signs = codes("signs", 34, {1, 256, 1}), high = codes("high", 66, {2, 32, 1, 8}),
                           scales = codes("scales", 74, {4, 16, 1});
    static constexpr Field fields[] = {d, entries, signs, high, scales};
};
struct IQ3_XXS : Layout<18, 256, 98> {  // words as in IQ2_XXS
    static constexpr char name[] = "IQ3_XXS";
    static constexpr GridShape grid{256, 4};
    static constexpr Field d = half_at("d", 0), entries = numbers("entries", Kind::u8, 2, 64),
                           signs_scales = numbers("signs_scales", Kind::u32, 66, 8);
    static constexpr Field fields[] = {d, entries, signs_scales};
};
struct IQ3_S : Layout<21, 256, 110> {
    static constexpr char name[] = "IQ3_S";
    static constexpr GridShape grid{512, 4};
    static constexpr Field d = half_at("d", 0), entries = numbers("entries", Kind::u8, 2, 64),
                           high = codes("high", 66, {1, 64, 1, 8}), signs = codes("signs", 74, {1, 256, 1}),
                           scales = codes("scales", 106, {4, 8, 1});
    static constexpr Field fields[] = {d, entries, high, signs, scales};
};
// IQ1's grid is moved up by an eighth, or down by one. For each 32 weights a word: four times three high bits of an
// entry, three bits of scale, one that is set for down.
struct IQ1_S : Layout<19, 256, 50> {
    static constexpr char name[] = "IQ1_S";
    static constexpr GridShape grid{2048, 8};
    static constexpr Field d = half_at("d", 0), entries = numbers("entries", Kind::u8, 2, 32),
                           high = numbers("high", Kind::u16, 34, 8);
    static constexpr Field fields[] = {d, entries, high};
};
// `high`: three high bits of an entry, one that is set for down. `scales`: four of three bits in each word and, above
// these, a quarter of the half that scales the block.
struct IQ1_M : Layout<29, 256, 56> {
    static constexpr char name[] = "IQ1_M";
    static constexpr GridShape grid{2048, 8};
    static constexpr Field entries = numbers("entries", Kind::u8, 0, 32), high = codes("high", 32, {4, 32, 1, 8}),
                           scales = numbers("scales", Kind::u16, 48, 4);
    static constexpr Field fields[] = {entries, high, scales};
};

// Codes of four bits choose from a table of sixteen: non-linear integers, or E2M1 numbers.

struct IQ4_NL : Layout<20, 32, 18> {
    static constexpr char name[] = "IQ4_NL";
    static constexpr Field d = half_at("d", 0), quants = codes("quants", 2, {4, 32, 16});
    static constexpr Field fields[] = {d, quants};
};
struct IQ4_XS : Layout<23, 256, 136> {
    static constexpr char name[] = "IQ4_XS";
    static constexpr Field d = half_at("d", 0), scales_high = codes("scales_high", 2, {2, 8, 1, 4}),
                           scales = codes("scales", 4, {4, 8, 1, 0, 32}), quants = codes("quants", 8, {4, 256, 16});
    static constexpr Field fields[] = {d, scales_high, scales, quants};
};
struct MXFP4 : Layout<39, 32, 17> {
    static constexpr char name[] = "MXFP4";
    static constexpr Field d = numbers("d", Kind::e8m0, 0), quants = codes("quants", 1, {4, 32, 16});
    static constexpr Field fields[] = {d, quants};
};
struct NVFP4 : Layout<40, 64, 36> {
    static constexpr char name[] = "NVFP4";
    static constexpr Field scales = numbers("scales", Kind::ue4m3, 0, 4), quants = codes("quants", 4, {4, 64, 8});
    static constexpr Field fields[] = {scales, quants};
};

// A byte of `quants` holds five digits of base three, as a fraction of one in fixed point; of `last`, four.
struct TQ1_0 : Layout<34, 256, 54> {
    static constexpr char name[] = "TQ1_0";
    static constexpr Field quants = numbers("quants", Kind::u8, 0, 48), last = numbers("last", Kind::u8, 48, 4),
                           d = half_at("d", 52);
    static constexpr Field fields[] = {quants, last, d};
};
struct TQ2_0 : Layout<35, 256, 66> {
    static constexpr char name[] = "TQ2_0";
    static constexpr Field quants = codes("quants", 0, {2, 256, 32, 0, 1}), d = half_at("d", 64);
    static constexpr Field fields[] = {quants, d};
};
struct Q1_0 : Layout<41, 128, 18> {  // a bit that is set is plus one, else minus one
    static constexpr char name[] = "Q1_0";
    static constexpr Field d = half_at("d", 0), quants = codes("quants", 2, {1, 128, 1});
    static constexpr Field fields[] = {d, quants};
};
struct Q2_0 : Layout<42, 64, 18> {
    static constexpr char name[] = "Q2_0";
    static constexpr Field d = half_at("d", 0), quants = codes("quants", 2, {2, 64, 1, 0, 1});
    static constexpr Field fields[] = {d, quants};
};

// Types that do not pack: one number an element.
template <int Id, Kind kind>
struct PlainLayout : Layout<Id, 1, kKindBytes[static_cast<int>(kind)]> {
    static constexpr Field fields[] = {numbers("number", kind, 0)};
};
struct F32 : PlainLayout<0, Kind::f32> {
    static constexpr char name[] = "F32";
};
struct F16 : PlainLayout<1, Kind::f16> {
    static constexpr char name[] = "F16";
};
struct I8 : PlainLayout<24, Kind::i8> {
    static constexpr char name[] = "I8";
};
struct I16 : PlainLayout<25, Kind::i16> {
    static constexpr char name[] = "I16";
};
struct I32 : PlainLayout<26, Kind::i32> {
    static constexpr char name[] = "I32";
};
struct I64 : PlainLayout<27, Kind::i64> {
    static constexpr char name[] = "I64";
};
struct F64 : PlainLayout<28, Kind::f64> {
    static constexpr char name[] = "F64";
};
struct BF16 : PlainLayout<30, Kind::bf16> {
    static constexpr char name[] = "BF16";
};

template <class... Types>
struct TypeList {
    static constexpr int table_size = [] {
        const int ids[] = {Types::id...};
        int size = 0;
        for (const int id : ids) size = id < size ? size : id + 1;
        return size;
    }();
};
using AllTypes =
    TypeList<F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S,
             IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, I8, I16, I32, I64, F64, IQ1_M, BF16, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0>;

// Tables by ggml id have so many entries; those of ids that no tensor has are empty.
constexpr int kTableSize = AllTypes::table_size;

// Each byte of a block must belong to one field.
template <class Type>
consteval bool fields_fill_the_block() {
    int owners[Type::type_size] = {};
    for (const Field& field : Type::fields) {
        const int parts = field.kind == Kind::codes ? 1 : field.count;
        for (int part = 0; part < parts; ++part) {
            for (int i = 0; i < field.bytes(); ++i) ++owners[field.at + part * field.step + i];
        }
    }
    for (const int count : owners) {
        if (count != 1) return false;
    }
    return true;
}
template <class... Types>
consteval bool all_fill_their_blocks(TypeList<Types...>) {
    return (fields_fill_the_block<Types>() && ...);
}
static_assert(all_fill_their_blocks(AllTypes{}));

// Weights and bytes a block; both 0 if no tensor has the type.
struct BlockSize {
    int64_t weights = 0, bytes = 0;
};
struct BlockSizes {
    BlockSize by_id[kTableSize] = {};
    template <class... Types>
    consteval explicit BlockSizes(TypeList<Types...>) {
        ((by_id[Types::id] = {Types::block_size, Types::type_size}), ...);
    }
};
inline constexpr BlockSizes kBlockSizes(AllTypes{});

}  // namespace torchgguf
