// Four-bit codes that are looked up in a table of sixteen: 4-bit floats and non-linear integers.

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

// E8M0 scale, nibbles
struct MXFP4 : Format<39, 32, 17> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half_of_e8m0(src[0]);
        const Nibbles q(src + 1);
        put(dst, kE2M1(q.low), scale);
        put(dst + 16, kE2M1(q.high), scale);
    }
};

// 4 scales of E4M3, then for each the nibbles of 16 weights
struct NVFP4 : Format<40, 64, 36> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        for (int i = 0; i < 4; ++i) {
            const auto q = load<uint64_t>(src + 4 + 8 * i);
            put(dst + 16 * i, kE2M1((u8x16)(u64x2){q, q >> 4} & 15), half_of_ue4m3(src[i]));
        }
    }
};

// half; nibbles
struct IQ4_NL : Format<20, 32, 18> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        const Nibbles q(src + 2);
        put(dst, kIQ4(q.low), scale);
        put(dst + 16, kIQ4(q.high), scale);
    }
};

// half, 8 scales of 6 bits (high crumbs, low nibbles), nibbles
struct IQ4_XS : Format<23, 256, 136> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        const auto high = load<uint16_t>(src + 2);
        const auto low = load<uint32_t>(src + 4);
        for (int group = 0; group < 8; ++group) {
            const int code = static_cast<int>((low >> 4 * group & 15u) | (high >> 2 * group & 3u) << 4) - 32;
            const float group_scale = scale * static_cast<float>(code);
            const Nibbles q(src + 8 + 16 * group);
            put(dst + 32 * group, kIQ4(q.low), group_scale);
            put(dst + 32 * group + 16, kIQ4(q.high), group_scale);
        }
    }
};
