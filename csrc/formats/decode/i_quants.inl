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

template <>
struct Decode<IQ2_XXS> : IQ2_XXS {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at) * 0.125f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* entry = src + entries.at + entries.step * group;
            const auto tail = load<uint32_t>(src + signs_scales.at + signs_scales.step * group);
            const float group_scale = scale * static_cast<float>((tail >> 28) * 2 + 1);
            for (int i = 0; i < 4; i += 2) {
                const u8x16 codes = codes16(grids.iq2_xxs[entry[i]], grids.iq2_xxs[entry[i + 1]]);
                const uint16_t signs = even_signs(tail >> 7 * i) | even_signs(tail >> (7 * i + 7)) << 8;
                put(dst + 32 * group + 8 * i, negate_where(codes, signs), group_scale);
            }
        }
    }
};

template <>
struct Decode<IQ2_XS> : IQ2_XS {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at) * 0.125f;
        for (int group = 0; group < 16; ++group) {
            const uint8_t* words = src + entries.at + 4 * group;
            const uint32_t a = load<uint16_t>(words), b = load<uint16_t>(words + 2);
            const uint32_t code = src[scales.at + group / 2] >> group % 2 * 4 & 15;
            const u8x16 codes = codes16(grids.iq2_xs[a & 511], grids.iq2_xs[b & 511]);
            put(dst + 16 * group, negate_where(codes, even_signs(a >> 9) | even_signs(b >> 9) << 8),
                scale * static_cast<float>(code * 2 + 1));
        }
    }
};

template <>
struct Decode<IQ2_S> : IQ2_S {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at) * 0.125f;
        for (int group = 0; group < 16; ++group) {
            const uint8_t* low = src + entries.at + 2 * group;
            const uint32_t above = src[high.at + group / 2] >> group % 2 * 4;
            const uint32_t code = src[scales.at + group / 2] >> group % 2 * 4 & 15;
            const u8x16 codes =
                codes16(grids.iq2_s[low[0] | (above & 3) << 8], grids.iq2_s[low[1] | (above & 12) << 6]);
            put(dst + 16 * group, negate_where(codes, load<uint16_t>(src + signs.at + 2 * group)),
                scale * static_cast<float>(code * 2 + 1));
        }
    }
};

template <>
struct Decode<IQ3_XXS> : IQ3_XXS {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at) * 0.25f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* entry = src + entries.at + 8 * group;
            const auto tail = load<uint32_t>(src + signs_scales.at + 4 * group);
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

template <>
struct Decode<IQ3_S> : IQ3_S {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
        for (int group = 0; group < 16; ++group) {
            const uint8_t* low = src + entries.at + 4 * group;
            const uint32_t above = uint32_t{src[high.at + group / 2]} << 8 >> group % 2 * 4;
            const uint32_t code = src[scales.at + group / 4] >> group / 2 % 2 * 4 & 15;
            const auto& grid = grids.iq3_s;
            const u8x16 codes = codes16(grid[low[0] | (above & 256)], grid[low[1] | (above >> 1 & 256)],
                                        grid[low[2] | (above >> 2 & 256)], grid[low[3] | (above >> 3 & 256)]);
            put(dst + 16 * group, negate_where(codes, load<uint16_t>(src + signs.at + 2 * group)),
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

template <>
struct Decode<IQ1_S> : IQ1_S {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at) * 0.125f;
        for (int group = 0; group < 8; ++group) {
            const uint8_t* low = src + entries.at + 4 * group;
            const uint32_t word = load<uint16_t>(src + high.at + 2 * group);
            const float group_scale = scale * static_cast<float>((word >> 12 & 7) * 2 + 1);
            const uint32_t down = (word >> 15) * 0xffff;
            for (int i = 0; i < 4; i += 2) {
                const uint32_t a = low[i] | (word >> 3 * i & 7) << 8;
                const uint32_t b = low[i + 1] | (word >> (3 * i + 3) & 7) << 8;
                put(dst + 32 * group + 8 * i, eighths(a, b, down), group_scale);
            }
        }
    }
};

template <>
struct Decode<IQ1_M> : IQ1_M {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const auto words = load<uint64_t>(src + scales.at);
        const uint64_t low_half = (words >> 12 & 0xf) | (words >> 24 & 0xf0);
        const uint64_t high_half = (words >> 36 & 0xf00) | (words >> 48 & 0xf000);
        const float scale = half_to_float(static_cast<uint16_t>(low_half | high_half)) * 0.125f;
        for (int group = 0; group < 16; ++group) {
            const uint8_t* low = src + entries.at + 2 * group;
            const uint32_t above = src[high.at + group];
            const auto code = static_cast<uint32_t>(words >> (group / 4 * 16 + group % 4 * 3)) & 7;
            const uint32_t a = low[0] | (above & 7) << 8, b = low[1] | (above & 0x70) << 4;
            const uint32_t down = (above >> 3 & 1) * 0xff | (above >> 7) * 0xff00;
            put(dst + 16 * group, eighths(a, b, down), scale * static_cast<float>(code * 2 + 1));
        }
    }
};
