// One and two bits a weight, and three values a weight.

struct Ternary : Integers<-1, 1> {
    static constexpr auto reach = steps<16>(1, 4.75);
};
struct UpToTwo : Integers<-1, 2> {
    static constexpr auto reach = steps<7>(1, 2.5) + steps<7>(-2.5, -1);
};

template <class Levels, int K>
struct ScaleAndCodes {
    F d;
    Codes<K> codes;

    explicit ScaleAndCodes(Tile<K>& tile) {
        tile.make_searchable();
        d = stored_half(fit_scale<Levels, K>(tile.x, tile.w).scale);
        const F factor = inverse(d);
        for (int i = 0; i < K; ++i) codes.set(i, Levels::code_of_nearest(tile.x[i] * factor));
    }
};

// Writes bytes of `Count` ternary digits each, from `run` neighbours on the next ones; so many as `size` codes make.
template <int Count>
inline void put_digits(uint8_t* dst, const uint8_t* codes, int size, int run) {
    for (const uint8_t* end = codes + size; codes < end; codes += Count * run) {
        for (int i = 0; i < run; ++i) {
            int number = 0;
            for (int j = 0; j < 5; ++j) number = number * 3 + (j < Count ? codes[j * run + i] : 0);
            *dst++ = static_cast<uint8_t>((number * 256 + 242) / 243);
        }
    }
}

template <>
struct Encode<TQ1_0> : TQ1_0 {
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const ScaleAndCodes<Ternary, 256> fit(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            const uint8_t* codes = fit.codes.of[b];
            put_digits<5>(dst + quants.at, codes, 160, 32);
            put_digits<5>(dst + quants.at + 32, codes + 160, 80, 16);
            put_digits<4>(dst + last.at, codes + 240, 16, 4);
            put_half<d>(dst, fit.d[b]);
        }
    }
};

template <>
struct Encode<TQ2_0> : TQ2_0 {
    static void blocks(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const ScaleAndCodes<Ternary, 256> fit(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_codes<quants>(dst, fit.codes.of[b]);
            put_half<d>(dst, fit.d[b]);
        }
    }
};

template <>
struct Encode<Q1_0> : Q1_0 {
    static void blocks(Tile<128>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        F sum{}, sum_w{};
        Codes<128> codes;
        for (int i = 0; i < 128; ++i) {
            sum += tile.w[i] * magnitude(tile.x[i]);
            sum_w += tile.w[i];
            codes.set(i, choose(tile.x[i] >= 0.0f, all(1), F{}));
        }
        const F scale = quotient(sum, sum_w);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_rounded<d>(dst, scale[b]);
            put_codes<quants>(dst, codes.of[b]);
        }
    }
};

template <>
struct Encode<Q2_0> : Q2_0 {
    static void blocks(Tile<64>& tile, bool, uint8_t* dst, int count) {
        const ScaleAndCodes<UpToTwo, 64> fit(tile);
        for (int b = 0; b < count; ++b, dst += type_size) {
            put_half<d>(dst, fit.d[b]);
            put_codes<quants>(dst, fit.codes.of[b]);
        }
    }
};
