// Four-bit codes that are looked up in a table of sixteen: 4-bit floats and non-linear integers.

template <>
struct Decode<MXFP4> : MXFP4 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half_of_e8m0(src[d.at]);
        const Nibbles q(src + quants.at);
        put(dst, kE2M1(q.low), scale);
        put(dst + 16, kE2M1(q.high), scale);
    }
};

template <>
struct Decode<NVFP4> : NVFP4 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        for (int i = 0; i < 4; ++i) {
            const auto q = load<uint64_t>(src + quants.at + 8 * i);
            put(dst + 16 * i, kE2M1((u8x16)(u64x2){q, q >> 4} & 15), half_of_ue4m3(src[scales.at + i]));
        }
    }
};

template <>
struct Decode<IQ4_NL> : IQ4_NL {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
        const Nibbles q(src + quants.at);
        put(dst, kIQ4(q.low), scale);
        put(dst + 16, kIQ4(q.high), scale);
    }
};

template <>
struct Decode<IQ4_XS> : IQ4_XS {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const ScalesOfIQ4_XS group_scales(src);
        for (int group = 0; group < 8; ++group) {
            const float group_scale = group_scales.scale(group);
            const Nibbles q(src + quants.at + 16 * group);
            put(dst + 32 * group, kIQ4(q.low), group_scale);
            put(dst + 32 * group + 16, kIQ4(q.high), group_scale);
        }
    }
};
