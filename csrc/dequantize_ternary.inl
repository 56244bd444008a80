// One and two bits a weight, and three values a weight.

// half; 128 bits: minus or plus one
struct Q1_0 : Format<41, 128, 18> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        for (int i = 0; i < 8; ++i) {
            put(dst + 16 * i, add_where(all_bytes(0xff), load<uint16_t>(src + 2 + 2 * i), 2), scale);
        }
    }
};

// half; 64 fields of two bits, side by side: -1 .. 2
struct Q2_0 : Format<42, 64, 18> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        for (int i = 2; i < 18; i += 4) {
            const u32x4 q = {src[i], src[i + 1], src[i + 2], src[i + 3]};
            const u32x4 spread = (q | q << 6 | q << 12 | q << 18) & 0x03030303;
            put(dst + 4 * (i - 2), (u8x16)spread - 1, scale);
        }
    }
};

// Five digits of base three in a byte, as fixed-point fractions of one: three times the fraction is the next
// digit (above the byte) and the rest (in it). `power` moves to a later digit. Gives -1, 0, 1.
inline u8x16 ternary_digit(u8x16 fractions, u8x16 power) {
    const u8x16 x = fractions * power;
    return -1 - (u8x16)(x > 85) - (u8x16)(x > 170);  // a comparison that holds is minus one
}

// 48 bytes of five ternary digits; 4 of four; half
struct TQ1_0 : Format<34, 256, 54> {
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

// 64 bytes of crumbs; half: -1 .. 2
struct TQ2_0 : Format<35, 256, 66> {
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
