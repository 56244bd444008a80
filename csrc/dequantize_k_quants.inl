// Blocks of 256 weights in groups whose scales are quantized themselves.

// 16 scales and minima of 4 bits; 64 bytes of crumbs (2 bits); two halves
struct Q2_K : Format<10, 256, 84> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        float scale[16], minimum[16];
        put(scale, load16(src) & 15, half(src + 80));
        put(minimum, load16(src) >> 4, half(src + 82));
#pragma GCC unroll 16  // so that shifts are by constants
        for (int group = 0; group < 16; ++group) {
            const u8x16 q = load16(src + 16 + group / 8 * 32 + group % 2 * 16) >> (group / 2 % 4 * 2);
            put(dst + 16 * group, q & 3, scale[group], minimum[group]);
        }
    }
};

// 256 third bits; 64 bytes of crumbs; 16 scales of 6 bits; half
struct Q3_K : Format<11, 256, 110> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        float scale[16];
        put(scale, scales_of_q3_k(src + 96), half(src + 108));
#pragma GCC unroll 16  // so that shifts are by constants
        for (int group = 0; group < 16; ++group) {
            const u8x16 low_bits = load16(src + 32 + group / 8 * 32 + group % 2 * 16) >> (group / 2 % 4 * 2);
            const u8x16 third_bit = load16(src + group % 2 * 16) >> (group / 2);
            put(dst + 16 * group, ((low_bits & 3) | (third_bit & 1) << 2) - 4, scale[group]);
        }
    }
};

// two halves; 12 bytes of scales and minima; 128 bytes of nibbles
struct Q4_K : Format<12, 256, 144> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const ScalesAndMinima s(src);
        for (int i = 0; i < 8; ++i) {  // bytes 16 i to 16 i + 15: a half of group g and of group g + 1
            const int g = i / 2 * 2;
            const Nibbles q(src + 16 + 16 * i);
            Out* out = dst + 32 * g + i % 2 * 16;
            put(out, q.low, s.scale(g), s.minimum(g));
            put(out + 32, q.high, s.scale(g + 1), s.minimum(g + 1));
        }
    }
};

// as Q4_K, with 32 bytes of fifth bits (bit g for group g) before the nibbles
struct Q5_K : Format<13, 256, 176> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const ScalesAndMinima s(src);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            const int g = i / 2 * 2;
            const Nibbles q(src + 48 + 16 * i);
            const u8x16 fifth = load16(src + 16 + i % 2 * 16) >> g;
            Out* out = dst + 32 * g + i % 2 * 16;
            put(out, q.low | (fifth & 1) << 4, s.scale(g), s.minimum(g));
            put(out + 32, q.high | (fifth & 2) << 3, s.scale(g + 1), s.minimum(g + 1));
        }
    }
};

// 128 bytes of nibbles; 64 of crumbs; 16 signed scales of a byte; half
struct Q6_K : Format<14, 256, 210> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        float scale[16];
        put(scale, load16(src + 192), half(src + 208));
        for (int i = 0; i < 4; ++i) {  // each time 4 x 16 of one half's 128 weights, 32 apart
            const int side = i / 2, k = i % 2;
            const Nibbles a(src + 64 * side + 16 * k), b(src + 64 * side + 16 * k + 32);
            const u8x16 crumbs = load16(src + 128 + 32 * side + 16 * k);
            const float* s = scale + 8 * side + k;
            Out* out = dst + 128 * side + 16 * k;
            put(out, (a.low | (crumbs << 4 & 0x30)) - 32, s[0]);
            put(out + 32, (b.low | (crumbs << 2 & 0x30)) - 32, s[2]);
            put(out + 64, (a.high | (crumbs & 0x30)) - 32, s[4]);
            put(out + 96, (b.high | (crumbs >> 2 & 0x30)) - 32, s[6]);
        }
    }
};
