// Blocks of 256 weights whose codes are found eight (or four) at a time in a grid, with signs beside.

// Which of 8 signs are minus, from 7 bits: there is always an even number of them.
inline uint32_t even_signs(uint32_t seven) {
    seven &= 127u;
    uint32_t parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 1u) << 7;
}

inline u8x16 negate_where(u8x16 codes, uint32_t bits) {
    const u8x16 minus = byte_mask(static_cast<uint16_t>(bits));
    return (codes ^ minus) - minus;
}

inline u8x16 codes16(uint64_t a, uint64_t b) { return (u8x16)(u64x2){a, b}; }
inline u8x16 codes16(uint32_t a, uint32_t b, uint32_t c, uint32_t d) { return (u8x16)(u32x4){a, b, c, d}; }

struct IQ2_XXS : Format<16, 256, 66> {  // half; for each 32 weights 4 grid entries, 4 x 7 signs, 4-bit scale
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src) * 0.125f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* entry = src + 2 + 8 * group;
            const auto tail = load<uint32_t>(entry + 4);
            const float group_scale = scale * static_cast<float>((tail >> 28) * 2 + 1);
            for (int i = 0; i < 4; i += 2) {
                const u8x16 codes = codes16(grids.iq2_xxs[entry[i]], grids.iq2_xxs[entry[i + 1]]);
                const uint32_t signs = even_signs(tail >> 7 * i) | even_signs(tail >> (7 * i + 7)) << 8;
                put(dst + 32 * group + 8 * i, negate_where(codes, signs), group_scale);
            }
        }
    }
};

struct IQ2_XS : Format<17, 256, 74> {  // half; 32 times a grid entry of 9 bits and 7 signs; 16 scales of 4 bits
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

struct IQ2_S : Format<22, 256, 82> {  // half; 32 low bytes of grid entries, 32 of signs, 8 of high bits, 8 of scales
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

struct IQ3_XXS : Format<18, 256, 98> {  // half; 64 grid entries; for each 32 weights 4 x 7 signs, 4-bit scale
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
                const uint32_t signs = even_signs(tail >> 14 * i) | even_signs(tail >> (14 * i + 7)) << 8;
                put(dst + 32 * group + 16 * i, negate_where(codes, signs), group_scale);
            }
        }
    }
};

struct IQ3_S : Format<21, 256, 110> {  // half; 64 low bytes of grid entries, 64 high bits, 256 signs, 8 scales
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

// IQ1: a grid of -1, 0, 1, all eight shifted by an eighth up or down. In eighths, and with the scale's eighth:
inline uint64_t eighths(uint32_t entry, bool down) {
    const uint64_t ones = 0x0101010101010101u;
    const auto times_eight = (u8x16)(u64x2){grids.iq1[entry]} << 3;
    return ((u64x2)(times_eight + (u8x16)(u64x2){down ? ones * 0xff : ones}))[0];
}

struct IQ1_S : Format<19, 256, 50> {  // half; 32 low bytes of grid entries; 8 times 4 x 3 high bits, scale, shift
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src) * 0.125f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* low = src + 2 + 4 * group;
            const uint32_t high = load<uint16_t>(src + 34 + 2 * group);
            const float group_scale = scale * static_cast<float>((high >> 12 & 7) * 2 + 1);
            const bool down = high & 0x8000;
            for (int i = 0; i < 4; i += 2) {
                const uint32_t a = low[i] | (high >> 3 * i & 7) << 8, b = low[i + 1] | (high >> (3 * i + 3) & 7) << 8;
                put(dst + 32 * group + 8 * i, codes16(eighths(a, down), eighths(b, down)), group_scale);
            }
        }
    }
};

struct IQ1_M : Format<29, 256, 56> {  // 32 low bytes of grid entries, 32 nibbles (3 high bits, shift), 4 x 16 bits of
    template <class Out>              // scales: 4 x 3 bits, and above them a quarter of the half that scales all
    static void decode(const uint8_t* src, Out* dst) {
        const auto scales = load<uint64_t>(src + 48);
        const auto whole = (scales >> 12 & 0xf) | (scales >> 24 & 0xf0) | (scales >> 36 & 0xf00) | (scales >> 48 & 0xf000);
        const float scale = half_to_float(static_cast<uint16_t>(whole)) * 0.125f;
        for (int group = 0; group < 16; ++group) {
            const uint8_t* low = src + 2 * group;
            const uint32_t high = src[32 + group];
            const auto code = static_cast<uint32_t>(scales >> (group / 4 * 16 + group % 4 * 3)) & 7;
            const uint32_t a = low[0] | (high & 7) << 8, b = low[1] | (high & 0x70) << 4;
            put(dst + 16 * group, codes16(eighths(a, high & 8), eighths(b, high & 0x80)),
                scale * static_cast<float>(code * 2 + 1));
        }
    }
};
