// Four-bit codes that are looked up in a table of sixteen: 4-bit floats and non-linear integers.

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
        const ScalesOfIQ4_XS scales(src);
        for (int group = 0; group < 8; ++group) {
            const float group_scale = scales.scale(group);
            const Nibbles q(src + 8 + 16 * group);
            put(dst + 32 * group, kIQ4(q.low), group_scale);
            put(dst + 32 * group + 16, kIQ4(q.high), group_scale);
        }
    }
};
