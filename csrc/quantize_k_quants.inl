// Blocks of 256 weights in groups whose scales (and minima) are quantized themselves.

struct ScalesOfFourBits : Integers<0, 15> { static constexpr auto reach = steps<10>(11, 15.5); };
struct ScalesOfSixBits : Integers<0, 63> { static constexpr auto reach = steps<16>(56, 63.5); };
struct SignedScalesOfSixBits : Integers<-32, 31> { static constexpr auto reach = steps<8>(-33, -26); };
struct ScalesOfEightBits : Integers<-128, 127> { static constexpr auto reach = steps<4>(-128, -122); };

template <class ScaleLevels, int Groups>
inline Codes<Groups> scale_codes(const F* scales) {
    Codes<Groups> codes;
    for (int g = 0; g < Groups; ++g) codes.set(g, ScaleLevels::code_of_nearest(scales[g]));
    return codes;
}

struct Q2_K : Encoder<10, 256, 84> {
    struct Levels : Integers<0, 3> { static constexpr auto reach = steps<17>(2, 4); };
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        const BlockLines<Levels, ScalesOfFourBits, 16, 16> fit(tile);
        const auto codes = fit.codes(tile);
        const auto scales = scale_codes<ScalesOfFourBits, 16>(fit.scales);
        const auto minima = scale_codes<ScalesOfFourBits, 16>(fit.minima);
        for (int b = 0; b < count; ++b) {
            for (int g = 0; g < 16; ++g) *dst++ = scales.of[b][g] | static_cast<uint8_t>(minima.of[b][g] << 4);
            dst = pack<2>(dst, codes.of[b], 256, 32);
            dst = put_half(put_half(dst, fit.d[b]), fit.dmin[b]);
        }
    }
};

struct Q3_K : Encoder<11, 256, 110> {
    struct Levels : Integers<-4, 3> {
        static constexpr auto reach = steps<13>(-4.9, -2.5) + Reach<3>{{2.6f, 3, 3.4f}};
    };
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        const BlockScales<Levels, SignedScalesOfSixBits, 16, 16> fit(tile);
        const auto codes = fit.codes(tile);
        const auto scales = scale_codes<SignedScalesOfSixBits, 16>(fit.scales);
        for (int b = 0; b < count; ++b) {
            dst = pack<1>(dst, codes.of[b], 256, 32, 2);
            dst = pack<2>(dst, codes.of[b], 256, 32);
            dst = pack<4>(dst, scales.of[b], 16, 8);
            dst = pack<2>(dst, scales.of[b], 16, 4, 4);
            dst = put_half(dst, fit.d[b]);
        }
    }
};

// What Q4_K and Q5_K blocks begin with: factors; scales and minima of six bits in 12 bytes.
template <class Fit>
inline uint8_t* put_lines(uint8_t* dst, const Fit& fit, const uint8_t* scales, const uint8_t* minima, int b) {
    dst = put_half(put_half(dst, fit.d[b]), fit.dmin[b]);
    for (int i = 0; i < 4; ++i) {
        dst[i] = static_cast<uint8_t>(scales[i] | scales[i + 4] >> 4 << 6);
        dst[i + 4] = static_cast<uint8_t>(minima[i] | minima[i + 4] >> 4 << 6);
        dst[i + 8] = static_cast<uint8_t>((scales[i + 4] & 15) | minima[i + 4] << 4);
    }
    return dst + 12;
}

template <class Levels, class PutCodes>
inline void encode_lines_of_32(Tile<256>& tile, uint8_t* dst, int count, PutCodes put_codes) {
    tile.make_searchable();
    const BlockLines<Levels, ScalesOfSixBits, 8, 32> fit(tile);
    const auto codes = fit.codes(tile);
    const auto scales = scale_codes<ScalesOfSixBits, 8>(fit.scales);
    const auto minima = scale_codes<ScalesOfSixBits, 8>(fit.minima);
    for (int b = 0; b < count; ++b) {
        dst = put_codes(put_lines(dst, fit, scales.of[b], minima.of[b], b), codes.of[b]);
    }
}

struct Q4_K : Encoder<12, 256, 144> {
    struct Levels : Integers<0, 15> { static constexpr auto reach = steps<17>(12.5, 16.5); };
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        encode_lines_of_32<Levels>(tile, dst, count, [](uint8_t* to, const uint8_t* codes) {
            return pack<4>(to, codes, 256, 32);
        });
    }
};

struct Q5_K : Encoder<13, 256, 176> {
    struct Levels : Integers<0, 31> { static constexpr auto reach = steps<21>(28, 33); };
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        encode_lines_of_32<Levels>(tile, dst, count, [](uint8_t* to, const uint8_t* codes) {
            return pack<4>(pack<1>(to, codes, 256, 32, 4), codes, 256, 32);
        });
    }
};

struct Q6_K : Encoder<14, 256, 210> {
    struct Levels : Integers<-32, 31> { static constexpr auto reach = steps<11>(-34, -29); };
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        const BlockScales<Levels, ScalesOfEightBits, 16, 16> fit(tile);
        const auto codes = fit.codes(tile);
        Codes<16> scales;
        for (int g = 0; g < 16; ++g) scales.set(g, fit.scales[g]);
        for (int b = 0; b < count; ++b) {
            dst = pack<4>(dst, codes.of[b], 256, 64);
            dst = pack<2>(dst, codes.of[b], 256, 32, 4);
            for (const uint8_t scale : scales.of[b]) *dst++ = scale;
            dst = put_half(dst, fit.d[b]);
        }
    }
};
