// Parts of blocks that decoding and dot products both read: scales, and the tables that codes of four bits
// choose from. To be included inside an unnamed namespace, after a simd_<instruction set>.inl.

inline float half(const uint8_t* src) { return half_to_float(load<uint16_t>(src)); }

// Writes 16 numbers, code * scale (- minimum).
template <class Out>
inline void put(Out* dst, u8x16 codes, float scale) {
    store(dst, widen(codes) * scale);
}
template <class Out>
inline void put(Out* dst, u8x16 codes, float scale, float minimum) {
    store(dst, widen(codes) * scale - minimum);
}

struct CodeTable {
    int8_t values[16];
    u8x16 operator()(u8x16 index) const { return lookup(load<u8x16>(values), index); }
};

// Twice the values of E2M1 (sign, two bits of exponent, one of mantissa).
constexpr CodeTable kE2M1 = {{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}};
constexpr CodeTable kIQ4 = {{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};

// Half of the power of two that an E8M0 byte stands for, 2^(e - 128); for the two smallest, a subnormal.
inline float half_of_e8m0(uint8_t e) {
    return bits_as<float>(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

// Q3_K's 16 scales: six bits, less 32, in 12 bytes.
inline u8x16 scales_of_q3_k(const uint8_t* src) {
    const auto a = load<uint32_t>(src), b = load<uint32_t>(src + 4), c = load<uint32_t>(src + 8);
    const u32x4 low = {a, b, a >> 4, b >> 4}, high = {c << 4, c << 2, c, c >> 2};
    return (u8x16)((low & 0x0f0f0f0f) | (high & 0x30303030)) - 32;
}

// The six-bit scales and minima of Q4_K and Q5_K: 8 of each in 12 bytes, times the two super-block factors
// that stand before them.
struct ScalesAndMinima {
    float values[2][16];
    explicit ScalesAndMinima(const uint8_t* src) {
        const auto a = load<uint32_t>(src + 4), b = load<uint32_t>(src + 8), c = load<uint32_t>(src + 12);
        const auto codes = (u8x16)(u32x4){a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030),
                                          b & 0x3f3f3f3f, (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)};
        put(values[0], codes, half(src));
        put(values[1], codes, half(src + 2));
    }
    float scale(int group) const { return values[0][group]; }
    float minimum(int group) const { return values[1][group + 8]; }
};

// IQ4_XS's 8 scales, six bits, less 32: a word of high crumbs, one of low nibbles; times the half before them.
struct ScalesOfIQ4_XS {
    float factor;
    uint32_t high, low;
    explicit ScalesOfIQ4_XS(const uint8_t* src)
        : factor(half(src)), high(load<uint16_t>(src + 2)), low(load<uint32_t>(src + 4)) {}
    float scale(int group) const {
        const uint32_t code = (low >> 4 * group & 15u) | (high >> 2 * group & 3u) << 4;
        return factor * static_cast<float>(static_cast<int>(code) - 32);
    }
};
