// Blocks of 256 weights whose codes are found eight (or four) at a time in a grid, with signs beside.

// Which of 8 signs are minus, from 7 bits: there is always an even number of them.
inline uint16_t even_signs(uint32_t seven) {
    seven &= 127u;
    uint32_t parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return static_cast<uint16_t>(seven | (parity & 1u) << 7);
}

inline u8x16 codes16(uint64_t a, uint64_t b) { return (u8x16)(u64x2){a, b}; }
inline u8x16 codes16(uint32_t a, uint32_t b, uint32_t c, uint32_t d) { return (u8x16)(u32x4){a, b, c, d}; }

// half; for each 32 weights 4 grid entries, 4 x 7 signs, 4 bits of scale
struct IQ2_XXS : Format<16, 256, 66> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src) * 0.125f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* entry = src + 2 + 8 * group;
            const auto tail = load<uint32_t>(entry + 4);
            const float group_scale = scale * static_cast<float>((tail >> 28) * 2 + 1);
            for (int i = 0; i < 4; i += 2) {
                const u8x16 codes = codes16(grids.iq2_xxs[entry[i]], grids.iq2_xxs[entry[i + 1]]);
                const uint16_t signs = even_signs(tail >> 7 * i) | even_signs(tail >> (7 * i + 7)) << 8;
                put(dst + 32 * group + 8 * i, negate_where(codes, signs), group_scale);
            }
        }
    }
};

// half; 32 grid entries of 9 bits with 7 signs each; 16 scales of 4 bits
struct IQ2_XS : Format<17, 256, 74> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src) * 0.125f;
        for (int group = 0; group < 16; ++group) {
            const uint32_t a = load<uint16_t>(src + 2 + 4 * group), b = load<uint16_t>(src + 4 + 4 * group);
            const uint32_t code = src[66 + group / 2] >> group % 2 * 4 & 15;
            const u8x16 codes = codes16(grids.iq2_xs[a & 511], grids.iq2_xs[b & 511]);
            put(dst + 16 * group, negate_where(codes, even_signs(a >> 9) | even_signs(b >> 9) << 8),
                scale * static_cast<float>(code * 2 + 1));
        }
    }
};

// half; 32 low bytes of grid entries; 256 signs; 32 x 2 high bits of entries; 16 scales of 4 bits
struct IQ2_S : Format<22, 256, 82> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src) * 0.125f;
        for (int group = 0; group < 16; ++group) {
            const uint8_t* low = src + 2 + 2 * group;
            const uint32_t high = src[66 + group / 2] >> group % 2 * 4;
            const uint32_t code = src[74 + group / 2] >> group % 2 * 4 & 15;
            const u8x16 codes =
                codes16(grids.iq2_s[low[0] | (high & 3) << 8], grids.iq2_s[low[1] | (high & 12) << 6]);
            put(dst + 16 * group, negate_where(codes, load<uint16_t>(src + 34 + 2 * group)),
                scale * static_cast<float>(code * 2 + 1));
        }
    }
};

// half; 64 grid entries; for each 32 weights 4 x 7 signs, 4 bits of scale
struct IQ3_XXS : Format<18, 256, 98> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src) * 0.25f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* entry = src + 2 + 8 * group;
            const auto tail = load<uint32_t>(src + 66 + 4 * group);
            const float group_scale = scale * static_cast<float>((tail >> 28) * 2 + 1);
            for (int i = 0; i < 2; ++i, entry += 4) {
                const auto& grid = grids.iq3_xxs;
                const u8x16 codes = codes16(grid[entry[0]], grid[entry[1]], grid[entry[2]], grid[entry[3]]);
                const uint16_t signs = even_signs(tail >> 14 * i) | even_signs(tail >> (14 * i + 7)) << 8;
                put(dst + 32 * group + 16 * i, negate_where(codes, signs), group_scale);
            }
        }
    }
};

// half; 64 low bytes of grid entries; their 64 high bits; 256 signs; 8 scales of 4 bits
struct IQ3_S : Format<21, 256, 110> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        for (int group = 0; group < 16; ++group) {
            const uint8_t* low = src + 2 + 4 * group;
            const uint32_t high = uint32_t{src[66 + group / 2]} << 8 >> group % 2 * 4;
            const uint32_t code = src[106 + group / 4] >> group / 2 % 2 * 4 & 15;
            const auto& grid = grids.iq3_s;
            const u8x16 codes = codes16(grid[low[0] | (high & 256)], grid[low[1] | (high >> 1 & 256)],
                                        grid[low[2] | (high >> 2 & 256)], grid[low[3] | (high >> 3 & 256)]);
            put(dst + 16 * group, negate_where(codes, load<uint16_t>(src + 74 + 2 * group)),
                scale * static_cast<float>(code * 2 + 1));
        }
    }
};

// IQ1's grid holds -1, 0, 1, and eight at a time are moved up by an eighth, or down where `down` has ones.
// Counted in eighths here.
inline u8x16 eighths(uint32_t a, uint32_t b, uint32_t down) {
    const u8x16 moved_up = (codes16(grids.iq1[a], grids.iq1[b]) << 3) + 1;
    return add_where(moved_up, static_cast<uint16_t>(down), static_cast<uint8_t>(-2));
}

// half; 32 low bytes of grid entries; for each 32 weights 4 x 3 high bits, 3 bits of scale, one of down
struct IQ1_S : Format<19, 256, 50> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src) * 0.125f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* low = src + 2 + 4 * group;
            const uint32_t high = load<uint16_t>(src + 34 + 2 * group);
            const float group_scale = scale * static_cast<float>((high >> 12 & 7) * 2 + 1);
            const uint32_t down = (high >> 15) * 0xffff;
            for (int i = 0; i < 4; i += 2) {
                const uint32_t a = low[i] | (high >> 3 * i & 7) << 8;
                const uint32_t b = low[i + 1] | (high >> (3 * i + 3) & 7) << 8;
                put(dst + 32 * group + 8 * i, eighths(a, b, down), group_scale);
            }
        }
    }
};

// 32 low bytes of grid entries; 32 nibbles side by side (3 high bits, one of down); 4 words of four scales of
// 3 bits and, above these, a quarter of the half
struct IQ1_M : Format<29, 256, 56> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const auto scales = load<uint64_t>(src + 48);
        const uint64_t low_half = (scales >> 12 & 0xf) | (scales >> 24 & 0xf0);
        const uint64_t high_half = (scales >> 36 & 0xf00) | (scales >> 48 & 0xf000);
        const float scale = half_to_float(static_cast<uint16_t>(low_half | high_half)) * 0.125f;
        for (int group = 0; group < 16; ++group) {
            const uint8_t* low = src + 2 * group;
            const uint32_t high = src[32 + group];
            const auto code = static_cast<uint32_t>(scales >> (group / 4 * 16 + group % 4 * 3)) & 7;
            const uint32_t a = low[0] | (high & 7) << 8, b = low[1] | (high & 0x70) << 4;
            const uint32_t down = (high >> 3 & 1) * 0xff | (high >> 7) * 0xff00;
            put(dst + 16 * group, eighths(a, b, down), scale * static_cast<float>(code * 2 + 1));
        }
    }
};
