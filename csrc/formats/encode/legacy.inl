// Blocks of 32 weights with one scale, and perhaps one offset.

// 1 / d, or 0 where that is infinite: where nothing is searched for, as near to zero as ggml's own.
inline F finite_inverse(F d) { return choose(magnitude(d) > 0x1p-128f, 1.0f / d, F{}); }

// A scale, and codes of which the middle one is zero.
template <class Levels>
struct Symmetric {
    F d;
    Codes<32> codes;

    Symmetric(Tile<32>& tile, bool weighted) {
        const F* x = tile.x;
        if (weighted) {
            tile.make_searchable();
            d = stored_half(fit_scale<Levels, 32>(x, tile.w).scale);
            const F factor = inverse(d);
            for (int i = 0; i < 32; ++i) codes.set(i, Levels::code_of_nearest(x[i] * factor));
            return;
        }
        constexpr float zero = -Levels::low;
        F extreme = x[0];
        for (int i = 1; i < 32; ++i) {
            extreme = choose(magnitude(x[i]) > magnitude(extreme), x[i], extreme);
        }
        d = extreme / -zero;
        const F factor = finite_inverse(d);
        for (int i = 0; i < 32; ++i) codes.set(i, min(x[i] * factor + (zero + 0.5f), all(2 * zero - 1)));
    }
};

// A scale and an offset.
template <class Levels>
struct WithOffset {
    F d, offset;
    Codes<32> codes;

    WithOffset(Tile<32>& tile, bool weighted) {
        const F* x = tile.x;
        if (weighted) {
            tile.make_searchable();
            const StoredLine line = fit_stored_line<Levels, 32>(x, tile.w);
            d = line.scale;
            offset = line.offset;
            const F factor = inverse(d);
            for (int i = 0; i < 32; ++i) codes.set(i, Levels::nearest((x[i] - offset) * factor));
            return;
        }
        F most = x[0];
        offset = x[0];
        for (int i = 1; i < 32; ++i) {
            offset = min(x[i], offset);  // of zeros, the first
            most = max(most, x[i]);
        }
        d = magnitude(most - offset) / static_cast<float>(Levels::high);
        const F factor = finite_inverse(d);
        for (int i = 0; i < 32; ++i) codes.set(i, (x[i] - offset) * factor + 0.5f);
    }
};

template <>
struct Encode<Q4_0> : Q4_0 {
    struct Levels : Integers<-8, 7> {
        static constexpr auto reach = steps<13>(-9, -6);
    };
    static void blocks(Tile<32>& tile, bool weighted, uint8_t* dst, int count) {
        const Symmetric<Levels> fit(tile, weighted);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_rounded<d>(dst, fit.d[b]);
            put_codes<quants>(dst, fit.codes.of[b]);
        }
    }
};

template <>
struct Encode<Q4_1> : Q4_1 {
    struct Levels : Integers<0, 15> {
        static constexpr auto reach = steps<17>(12.5, 16.5);
    };
    static void blocks(Tile<32>& tile, bool weighted, uint8_t* dst, int count) {
        const WithOffset<Levels> fit(tile, weighted);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_rounded<d>(dst, fit.d[b]);
            put_rounded<m>(dst, fit.offset[b]);
            put_codes<quants>(dst, fit.codes.of[b]);
        }
    }
};

template <>
struct Encode<Q5_0> : Q5_0 {
    struct Levels : Integers<-16, 15> {
        static constexpr auto reach = steps<17>(-17, -13);
    };
    static void blocks(Tile<32>& tile, bool weighted, uint8_t* dst, int count) {
        const Symmetric<Levels> fit(tile, weighted);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_rounded<d>(dst, fit.d[b]);
            put_codes<high>(dst, fit.codes.of[b]);
            put_codes<quants>(dst, fit.codes.of[b]);
        }
    }
};

template <>
struct Encode<Q5_1> : Q5_1 {
    struct Levels : Integers<0, 31> {
        static constexpr auto reach = steps<21>(28, 33);
    };
    static void blocks(Tile<32>& tile, bool weighted, uint8_t* dst, int count) {
        const WithOffset<Levels> fit(tile, weighted);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_rounded<d>(dst, fit.d[b]);
            put_rounded<m>(dst, fit.offset[b]);
            put_codes<high>(dst, fit.codes.of[b]);
            put_codes<quants>(dst, fit.codes.of[b]);
        }
    }
};

template <>
struct Encode<Q8_0> : Q8_0 {
    static void blocks(Tile<32>& tile, bool, uint8_t* dst, int count) {
        F most{};
        for (const F& x : tile.x) most = max(most, magnitude(x));
        const F scale = most / 127.0f, factor = finite_inverse(scale);
        Codes<32> codes;
        for (int i = 0; i < 32; ++i) {
            const F scaled = tile.x[i] * factor, whole = to_float(to_int(scaled));
            codes.set(i, whole + to_float(to_int((scaled - whole) * 2.0f)));  // halves go away from zero
        }
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_rounded<d>(dst, scale[b]);
            put_bytes<quants>(dst, codes.of[b]);
        }
    }
};
