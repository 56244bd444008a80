// Four-bit codes that stand for the sixteen numbers of a table: 4-bit floats, and non-linear integers.

// Twice the numbers of E2M1, and their codes: positive ones from 0 on, negative ones from 8 on.
struct E2M1 {
    static constexpr float levels[] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};
    static constexpr LevelTable table{levels};
    static constexpr float codes[16] = {15, 14, 13, 12, 11, 10, 9, 0, 1, 2, 3, 4, 5, 6, 7};
    static constexpr auto reach = steps<15>(7, 14);
    static F nearest(F x) { return table.nearest(x); }
    static F code_of_nearest(F x) { return look_up(codes, table.index_of_nearest(x)); }
};

struct IQ4 {
    static constexpr float levels[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    static constexpr LevelTable table{levels};
    static constexpr auto reach = steps<11>(-140, -90) + steps<7>(90, 120);
    static F nearest(F x) { return table.nearest(x); }
    static F code_of_nearest(F x) { return to_float(table.index_of_nearest(x)); }
};

// Of each lane's code and its two neighbours, the one whose scale, scale_of(code), loses least.
template <int K, class ScaleOf>
inline I best_scale_code(const F* x, const F* w, I code, int last, ScaleOf scale_of) {
    const auto loss = [&](I tried) {
        F scale{}, sum{};
        for (int b = 0; b < kLanes; ++b) scale[b] = scale_of(tried[b]);
        const F factor = inverse(scale);
        for (int i = 0; i < K; ++i) {
            const F error = x[i] - scale * E2M1::nearest(x[i] * factor);
            sum += w[i] * error * error;
        }
        return sum;
    };
    F least = loss(code);
    I best = code;
    for (int move = -1; move <= 1; move += 2) {
        I tried = code + move;
        tried = tried < 0 ? 0 : tried > last ? last : tried;
        const F tried_loss = loss(tried);
        const I better = tried_loss < least;
        best = better ? tried : best;
        least = choose(better, tried_loss, least);
    }
    return best;
}

template <>
struct Encode<MXFP4> : MXFP4 {
    static void blocks(Tile<32>& tile, bool, uint8_t* dst, int count) {
        F most{};
        for (const F& x : tile.x) most = max(most, magnitude(x));
        I code = ((I)most >> 23) - 126 + 124;  // of the power of two above, and two octaves below
        code = code < 0 ? 0 : code > 254 ? 254 : code;
        code = best_scale_code<32>(tile.x, tile.w, code, 254, half_of_e8m0);
        F factor;
        for (int b = 0; b < kLanes; ++b) factor[b] = half_of_e8m0(code[b]);
        factor = inverse(factor);
        Codes<32> codes;
        for (int i = 0; i < 32; ++i) codes.set(i, E2M1::code_of_nearest(tile.x[i] * factor));
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_number<d>(dst, 0, static_cast<uint8_t>(code[b]));
            put_codes<quants>(dst, codes.of[b]);
        }
    }
};

template <>
struct Encode<NVFP4> : NVFP4 {
    // The byte of the nearest scale, of two the lower one.
    static int nearest_scale(float scale) {
        int byte = 0;
        for (int step = 64; step > 0; step /= 2) {
            const int next = byte + step;
            if (next < 0x7f && scale > (half_of_ue4m3(next - 1) + half_of_ue4m3(next)) / 2) byte = next;
        }
        return byte;
    }
    static void blocks(Tile<64>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        Codes<4> scale_codes;
        Codes<64> codes;
        for (int g = 0; g < 4; ++g) {
            const F *x = tile.x + 16 * g, *w = tile.w + 16 * g;
            const F scale = magnitude(fit_scale<E2M1, 16>(x, w).scale);
            I code;
            for (int b = 0; b < kLanes; ++b) code[b] = nearest_scale(scale[b]);
            code = best_scale_code<16>(x, w, code, 0x7e, half_of_ue4m3);
            F factor;
            for (int b = 0; b < kLanes; ++b) factor[b] = half_of_ue4m3(code[b]);
            factor = inverse(factor);
            scale_codes.set(g, to_float(code));
            for (int i = 0; i < 16; ++i) codes.set(16 * g + i, E2M1::code_of_nearest(x[i] * factor));
        }
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_bytes<scales>(dst, scale_codes.of[b]);
            put_codes<quants>(dst, codes.of[b]);
        }
    }
};

// presumed_importance of fitting.py, in groups of K weights.
template <int K, int N>
inline void presume_importance(Tile<N>& tile) {
    for (int g = 0; g < N; g += K) {
        F sum{};
        for (int i = g; i < g + K; ++i) sum += magnitude(tile.x[i]);
        const F per_mean = inverse(sum / static_cast<float>(K));
        for (int i = g; i < g + K; ++i) tile.w[i] = 1.0f + magnitude(tile.x[i]) * per_mean;
    }
}

template <>
struct Encode<IQ4_NL> : IQ4_NL {
    static void blocks(Tile<32>& tile, bool weighted, uint8_t* dst, int count) {
        tile.make_searchable();
        if (!weighted) presume_importance<32>(tile);
        const F scale = stored_half(fit_scale<IQ4, 32>(tile.x, tile.w).scale), factor = inverse(scale);
        Codes<32> codes;
        for (int i = 0; i < 32; ++i) codes.set(i, IQ4::code_of_nearest(tile.x[i] * factor));
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, scale[b]);
            put_codes<quants>(dst, codes.of[b]);
        }
    }
};

template <>
struct Encode<IQ4_XS> : IQ4_XS {
    static void blocks(Tile<256>& tile, bool weighted, uint8_t* dst, int count) {
        tile.make_searchable();
        if (!weighted) presume_importance<32>(tile);
        const BlockScales<IQ4, SignedScalesOfSixBits, 8, 32> fit(tile);
        const auto codes = fit.codes(tile);
        const auto scale_codes = nearest_codes<SignedScalesOfSixBits, 8>(fit.scales);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, fit.d[b]);
            put_codes<scales_high>(dst, scale_codes.of[b]);
            put_codes<scales>(dst, scale_codes.of[b]);
            put_codes<quants>(dst, codes.of[b]);
        }
    }
};
