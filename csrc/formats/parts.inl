// Parts of blocks that decoding and dot products both read: scales, and the tables that codes of four bits
// choose from. Included inside an unnamed namespace, after the sixteen floats of the instruction set.

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

// 32 weights from 16 bytes: the low nibbles, then the high ones.
struct Nibbles {
    u8x16 low, high;
    explicit Nibbles(const uint8_t* src) : low(load16(src) & 15), high(load16(src) >> 4) {}
    // Adds a fifth bit to each.
    Nibbles(const uint8_t* src, uint32_t fifth) : Nibbles(src) {
        low = add_where(low, static_cast<uint16_t>(fifth), 16);
        high = add_where(high, static_cast<uint16_t>(fifth >> 16), 16);
    }
};

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

// Half of an unsigned E4M3 (bias 7). As in ggml bit 7 counts for nothing, but 0x7f, and it alone, is zero.
inline float half_of_ue4m3(uint8_t x) {
    const uint32_t exponent = x >> 3 & 15u, mantissa = x & 7u;
    if (x == 0x7f) return 0.0f;
    if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
    return bits_as<float>((exponent + 119u) << 23 | mantissa << 20);
}

// The 16 scales of a Q3_K block.
inline u8x16 scales_of_q3_k(const uint8_t* block) {
    const uint8_t* low_nibbles = block + Q3_K::scales.at;
    const auto a = load<uint32_t>(low_nibbles), b = load<uint32_t>(low_nibbles + 4);
    const auto c = load<uint32_t>(block + Q3_K::scales_high.at);
    const u32x4 low = {a, b, a >> 4, b >> 4}, high = {c << 4, c << 2, c, c >> 2};
    return (u8x16)((low & 0x0f0f0f0f) | (high & 0x30303030)) - Q3_K::scales.zero;
}

// The eight scales and minima of a Q4_K or Q5_K block, times its two factors.
template <class Type>
struct ScalesAndMinima {
    float values[2][16];
    explicit ScalesAndMinima(const uint8_t* block) {
        const uint8_t* src = block + Type::scales.at;
        const auto a = load<uint32_t>(src), b = load<uint32_t>(src + 4), c = load<uint32_t>(src + 8);
        const auto codes = (u8x16)(u32x4){a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030), b & 0x3f3f3f3f,
                                          (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)};
        put(values[0], codes, half(block + Type::d.at));
        put(values[1], codes, half(block + Type::dmin.at));
    }
    float scale(int group) const { return values[0][group]; }
    float minimum(int group) const { return values[1][group + 8]; }
};

// The eight scales of an IQ4_XS block, times its factor.
struct ScalesOfIQ4_XS {
    float factor;
    uint32_t high, low;
    explicit ScalesOfIQ4_XS(const uint8_t* block)
        : factor(half(block + IQ4_XS::d.at)),
          high(load<uint16_t>(block + IQ4_XS::scales_high.at)),
          low(load<uint32_t>(block + IQ4_XS::scales.at)) {}
    float scale(int group) const {
        const uint32_t code = (low >> 4 * group & 15u) | (high >> 2 * group & 3u) << 4;
        return factor * static_cast<float>(static_cast<int>(code) - IQ4_XS::scales.zero);
    }
};
