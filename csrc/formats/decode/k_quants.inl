// Blocks of 256 weights in groups whose scales are quantized themselves.

template <>
struct Decode<Q2_K> : Q2_K {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        float scale[16], minimum[16];
        put(scale, load16(src + scales.at) & 15, half(src + d.at));
        put(minimum, load16(src + scales.at) >> 4, half(src + dmin.at));
#pragma GCC unroll 16  // so that shifts are by constants
        for (int group = 0; group < 16; ++group) {
            const u8x16 q = load16(src + quants.at + group / 8 * 32 + group % 2 * 16) >> (group / 2 % 4 * 2);
            put(dst + 16 * group, q & 3, scale[group], minimum[group]);
        }
    }
};

template <>
struct Decode<Q3_K> : Q3_K {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        float scale[16];
        put(scale, scales_of_q3_k(src), half(src + d.at));
#pragma GCC unroll 16  // so that shifts are by constants
        for (int group = 0; group < 16; ++group) {
            const u8x16 low_bits = load16(src + quants.at + group / 8 * 32 + group % 2 * 16) >> (group / 2 % 4 * 2);
            const u8x16 third_bit = load16(src + high.at + group % 2 * 16) >> (group / 2);
            put(dst + 16 * group, ((low_bits & 3) | (third_bit & 1) << high.shift) - quants.zero, scale[group]);
        }
    }
};

template <>
struct Decode<Q4_K> : Q4_K {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const ScalesAndMinima<Q4_K> s(src);
        for (int i = 0; i < 8; ++i) {  // bytes 16 i to 16 i + 15: a half of group g and of group g + 1
            const int g = i / 2 * 2;
            const Nibbles q(src + quants.at + 16 * i);
            Out* out = dst + 32 * g + i % 2 * 16;
            put(out, q.low, s.scale(g), s.minimum(g));
            put(out + 32, q.high, s.scale(g + 1), s.minimum(g + 1));
        }
    }
};

template <>
struct Decode<Q5_K> : Q5_K {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const ScalesAndMinima<Q5_K> s(src);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            const int g = i / 2 * 2;
            const Nibbles q(src + quants.at + 16 * i);
            const u8x16 fifth = load16(src + high.at + i % 2 * 16) >> g;
            Out* out = dst + 32 * g + i % 2 * 16;
            put(out, q.low | (fifth & 1) << 4, s.scale(g), s.minimum(g));
            put(out + 32, q.high | (fifth & 2) << 3, s.scale(g + 1), s.minimum(g + 1));
        }
    }
};

template <>
struct Decode<Q6_K> : Q6_K {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        float scale[16];
        put(scale, load16(src + scales.at), half(src + d.at));
        for (int i = 0; i < 4; ++i) {  // each time 4 x 16 of one half's 128 weights, 32 apart
            const int side = i / 2, k = i % 2;
            const uint8_t* nibbles = src + quants.at + 64 * side + 16 * k;
            const Nibbles a(nibbles), b(nibbles + 32);
            const u8x16 crumbs = load16(src + high.at + 32 * side + 16 * k);
            const float* s = scale + 8 * side + k;
            Out* out = dst + 128 * side + 16 * k;
            put(out, (a.low | (crumbs << 4 & 0x30)) - quants.zero, s[0]);
            put(out + 32, (b.low | (crumbs << 2 & 0x30)) - quants.zero, s[2]);
            put(out + 64, (a.high | (crumbs & 0x30)) - quants.zero, s[4]);
            put(out + 96, (b.high | (crumbs >> 2 & 0x30)) - quants.zero, s[6]);
        }
    }
};
