// One and two bits a weight, and three values a weight.

template <>
struct Decode<Q1_0> : Q1_0 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
        for (int i = 0; i < 8; ++i) {
            put(dst + 16 * i, add_where(all_bytes(0xff), load<uint16_t>(src + quants.at + 2 * i), 2), scale);
        }
    }
};

template <>
struct Decode<Q2_0> : Q2_0 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
        const uint8_t* bytes = src + quants.at;
        for (int i = 0; i < block_size / 4; i += 4) {
            const u32x4 q = {bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]};
            const u32x4 spread = (q | q << 6 | q << 12 | q << 18) & 0x03030303;
            put(dst + 4 * i, (u8x16)spread - quants.zero, scale);
        }
    }
};

// Five digits of base three in a byte, as fixed-point fractions of one: three times the fraction is the next
// digit (above the byte) and the rest (in it). `power` moves to a later digit. The result is -1, 0 or 1.
inline u8x16 ternary_digit(u8x16 fractions, u8x16 power) {
    const u8x16 x = fractions * power;
    return -1 - (u8x16)(x > 85) - (u8x16)(x > 170);  // a comparison that holds is minus one
}

template <>
struct Decode<TQ1_0> : TQ1_0 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const uint8_t powers[5] = {1, 3, 9, 27, 81};
        const float scale = half(src + d.at);
        for (int n = 0; n < 5; ++n) {
            const u8x16 power = all_bytes(powers[n]);
            put(dst + 32 * n, ternary_digit(load16(src + quants.at), power), scale);
            put(dst + 32 * n + 16, ternary_digit(load16(src + quants.at + 16), power), scale);
            put(dst + 160 + 16 * n, ternary_digit(load16(src + quants.at + 32), power), scale);
        }
        const auto four = load<uint32_t>(src + last.at);
        const u8x16 power = {1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27};
        put(dst + 240, ternary_digit((u8x16)(u32x4){four, four, four, four}, power), scale);
    }
};

template <>
struct Decode<TQ2_0> : TQ2_0 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
#pragma GCC unroll 16  // so that shifts are by constants
        for (int group = 0; group < 16; ++group) {
            const u8x16 q = load16(src + quants.at + group / 8 * 32 + group % 2 * 16) >> (group / 2 % 4 * 2);
            put(dst + 16 * group, (q & 3) - quants.zero, scale);
        }
    }
};
