// One and two bits a weight, and three values a weight.

struct Q1_0 : Format<41, 128, 18> {  // half scale, 128 bits: minus or plus one
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        for (int i = 0; i < 8; ++i) put(dst + 16 * i, (byte_mask(load<uint16_t>(src + 2 + 2 * i)) & 2) - 1, scale);
    }
};

struct Q2_0 : Format<42, 64, 18> {  // half scale, 64 times two bits, neighbours side by side: -1 .. 2
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const u8x16 byte_of_weight = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
        const u8x16 to_the_top = {64, 16, 4, 1, 64, 16, 4, 1, 64, 16, 4, 1, 64, 16, 4, 1};
        const float scale = half(src);
        for (int i = 0; i < 4; ++i) {
            const auto bytes = (u8x16)(u32x4){load<uint32_t>(src + 2 + 4 * i)};
            put(dst + 16 * i, ((lookup(bytes, byte_of_weight) * to_the_top) >> 6) - 1, scale);
        }
    }
};

// Five digits of base three in a byte, as fixed-point fractions of one: three times the fraction is the next
// digit (above the byte) and the rest (in it). `power` moves to a later digit. Gives -1, 0, 1.
inline u8x16 ternary_digit(u8x16 fractions, u8x16 power) {
    const u8x16 x = fractions * power;
    return -1 - (u8x16)(x > 85) - (u8x16)(x > 170);  // a comparison that holds is minus one
}

inline u8x16 all_bytes(uint8_t value) { return u8x16{} + value; }

struct TQ1_0 : Format<34, 256, 54> {  // 48 bytes of five digits, 4 of four, half scale
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const uint8_t powers[5] = {1, 3, 9, 27, 81};
        const float scale = half(src + 52);
        for (int n = 0; n < 5; ++n) {
            const u8x16 power = all_bytes(powers[n]);
            put(dst + 32 * n, ternary_digit(load16(src), power), scale);
            put(dst + 32 * n + 16, ternary_digit(load16(src + 16), power), scale);
            put(dst + 160 + 16 * n, ternary_digit(load16(src + 32), power), scale);
        }
        const auto last = load<uint32_t>(src + 48);
        const u8x16 power = {1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27};
        put(dst + 240, ternary_digit((u8x16)(u32x4){last, last, last, last}, power), scale);
    }
};

struct TQ2_0 : Format<35, 256, 66> {  // 64 bytes of crumbs, half scale: -1 .. 2
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src + 64);
#pragma GCC unroll 16  // so that shifts are by constants
        for (int group = 0; group < 16; ++group) {
            const u8x16 q = load16(src + group / 8 * 32 + group % 2 * 16) >> (group / 2 % 4 * 2);
            put(dst + 16 * group, (q & 3) - 1, scale);
        }
    }
};
