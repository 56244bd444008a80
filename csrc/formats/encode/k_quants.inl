// Blocks of 256 weights in groups whose scales (and minima) are quantized themselves.

struct ScalesOfFourBits : Integers<0, 15> {
    static constexpr auto reach = steps<10>(11, 15.5);
};
struct ScalesOfSixBits : Integers<0, 63> {
    static constexpr auto reach = steps<16>(56, 63.5);
};
struct SignedScalesOfSixBits : Integers<-32, 31> {
    static constexpr auto reach = steps<8>(-33, -26);
};
struct ScalesOfEightBits : Integers<-128, 127> {
    static constexpr auto reach = steps<4>(-128, -122);
};

template <class ScaleLevels, int Groups>
inline Codes<Groups> nearest_codes(const F* scales) {
    Codes<Groups> codes;
    for (int g = 0; g < Groups; ++g) codes.set(g, ScaleLevels::code_of_nearest(scales[g]));
    return codes;
}

template <>
struct Encode<Q2_K> : Q2_K {
    struct Levels : Integers<0, 3> {
        static constexpr auto reach = steps<17>(2, 4);
    };
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        const BlockLines<Levels, ScalesOfFourBits, 16, 16> fit(tile);
        const auto codes = fit.codes(tile);
        const auto scale_codes = nearest_codes<ScalesOfFourBits, 16>(fit.scales);
        const auto minimum_codes = nearest_codes<ScalesOfFourBits, 16>(fit.minima);
        for (int b = 0; b < count; ++b, dst += type_size) {
            uint8_t both[32];
            __builtin_memcpy(both, scale_codes.of[b], 16);
            __builtin_memcpy(both + 16, minimum_codes.of[b], 16);
            put_codes<scales>(dst, both);
            put_codes<quants>(dst, codes.of[b]);
            put_half<d>(dst, fit.d[b]);
            put_half<dmin>(dst, fit.dmin[b]);
        }
    }
};

template <>
struct Encode<Q3_K> : Q3_K {
    struct Levels : Integers<-4, 3> {
        static constexpr auto reach = steps<13>(-4.9, -2.5) + Reach<3>{{2.6f, 3, 3.4f}};
    };
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        const BlockScales<Levels, SignedScalesOfSixBits, 16, 16> fit(tile);
        const auto codes = fit.codes(tile);
        const auto scale_codes = nearest_codes<SignedScalesOfSixBits, 16>(fit.scales);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_codes<high>(dst, codes.of[b]);
            put_codes<quants>(dst, codes.of[b]);
            put_codes<scales>(dst, scale_codes.of[b]);
            put_codes<scales_high>(dst, scale_codes.of[b]);
            put_half<d>(dst, fit.d[b]);
        }
    }
};

// Eight scales and eight minima of six bits each, in 12 bytes.
inline void put_six_bits(uint8_t* dst, const uint8_t* scales, const uint8_t* minima) {
    for (int i = 0; i < 4; ++i) {
        dst[i] = static_cast<uint8_t>(scales[i] | scales[i + 4] >> 4 << 6);
        dst[i + 4] = static_cast<uint8_t>(minima[i] | minima[i + 4] >> 4 << 6);
        dst[i + 8] = static_cast<uint8_t>((scales[i + 4] & 15) | minima[i + 4] << 4);
    }
}

// Q4_K and Q5_K but for their codes, which `put` writes.
template <class Type, class Levels, class Put>
inline void encode_lines_of_32(Tile<256>& tile, uint8_t* dst, int count, Put put) {
    tile.make_searchable();
    const BlockLines<Levels, ScalesOfSixBits, 8, 32> fit(tile);
    const auto codes = fit.codes(tile);
    const auto scales = nearest_codes<ScalesOfSixBits, 8>(fit.scales);
    const auto minima = nearest_codes<ScalesOfSixBits, 8>(fit.minima);
    for (int b = 0; b < count; ++b, dst += Type::type_size) {
        put_half<Type::d>(dst, fit.d[b]);
        put_half<Type::dmin>(dst, fit.dmin[b]);
        put_six_bits(dst + Type::scales.at, scales.of[b], minima.of[b]);
        put(dst, codes.of[b]);
    }
}

template <>
struct Encode<Q4_K> : Q4_K {
    struct Levels : Integers<0, 15> {
        static constexpr auto reach = steps<17>(12.5, 16.5);
    };
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        encode_lines_of_32<Q4_K, Levels>(tile, dst, count,
                                         [](uint8_t* block, const uint8_t* codes) { put_codes<quants>(block, codes); });
    }
};

template <>
struct Encode<Q5_K> : Q5_K {
    struct Levels : Integers<0, 31> {
        static constexpr auto reach = steps<21>(28, 33);
    };
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        encode_lines_of_32<Q5_K, Levels>(tile, dst, count, [](uint8_t* block, const uint8_t* codes) {
            put_codes<high>(block, codes);
            put_codes<quants>(block, codes);
        });
    }
};

template <>
struct Encode<Q6_K> : Q6_K {
    struct Levels : Integers<-32, 31> {
        static constexpr auto reach = steps<11>(-34, -29);
    };
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        const BlockScales<Levels, ScalesOfEightBits, 16, 16> fit(tile);
        const auto codes = fit.codes(tile);
        Codes<16> scale_codes;
        for (int g = 0; g < 16; ++g) scale_codes.set(g, fit.scales[g]);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_codes<quants>(dst, codes.of[b]);
            put_codes<high>(dst, codes.of[b]);
            put_bytes<scales>(dst, scale_codes.of[b]);
            put_half<d>(dst, fit.d[b]);
        }
    }
};
