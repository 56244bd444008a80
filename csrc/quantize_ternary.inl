// One and two bits a weight, and three values a weight.

struct Ternary : Integers<-1, 1> { static constexpr auto reach = steps<16>(1, 4.75); };
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

// Bytes of `Count` ternary digits each, from `run` neighbours on the next ones; so many as `size` codes make.
template <int Count>
inline uint8_t* pack_digits(uint8_t* dst, const uint8_t* codes, int size, int run) {
    for (const uint8_t* end = codes + size; codes < end; codes += Count * run) {
        for (int i = 0; i < run; ++i) {
            int number = 0;
            for (int j = 0; j < 5; ++j) number = number * 3 + (j < Count ? codes[j * run + i] : 0);
            *dst++ = static_cast<uint8_t>((number * 256 + 242) / 243);
        }
    }
    return dst;
}

struct TQ1_0 : Encoder<34, 256, 54> {
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const ScaleAndCodes<Ternary, 256> fit(tile);
        for (int b = 0; b < count; ++b) {
            const uint8_t* codes = fit.codes.of[b];
            dst = pack_digits<5>(pack_digits<5>(dst, codes, 160, 32), codes + 160, 80, 16);
            dst = put_half(pack_digits<4>(dst, codes + 240, 16, 4), fit.d[b]);
        }
    }
};

struct TQ2_0 : Encoder<35, 256, 66> {
    static void encode(Tile<256>& tile, bool, uint8_t* dst, int count) {
        const ScaleAndCodes<Ternary, 256> fit(tile);
        for (int b = 0; b < count; ++b) dst = put_half(pack<2>(dst, fit.codes.of[b], 256, 32), fit.d[b]);
    }
};

struct Q1_0 : Encoder<41, 128, 18> {
    static void encode(Tile<128>& tile, bool, uint8_t* dst, int count) {
        tile.make_searchable();
        F sum{}, sum_w{};
        Codes<128> codes;
        for (int i = 0; i < 128; ++i) {
            sum += tile.w[i] * magnitude(tile.x[i]);
            sum_w += tile.w[i];
            codes.set(i, choose(tile.x[i] >= 0.0f, all(1), F{}));
        }
        const F d = quotient(sum, sum_w);
        for (int b = 0; b < count; ++b) dst = pack<1>(put_rounded(dst, d[b]), codes.of[b], 128, 1);
    }
};

struct Q2_0 : Encoder<42, 64, 18> {
    static void encode(Tile<64>& tile, bool, uint8_t* dst, int count) {
        const ScaleAndCodes<UpToTwo, 64> fit(tile);
        for (int b = 0; b < count; ++b) dst = pack<2>(put_half(dst, fit.d[b]), fit.codes.of[b], 64, 1);
    }
};
