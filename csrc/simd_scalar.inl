// Sixteen floats in portable C++: what every CPU runs, and the list of what an instruction set must offer.

struct F32x16 {
    float lane[16];
};

inline float half_to_float(uint16_t half) {
    const uint32_t magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
    if (magnitude >= 0x7c00u) return bits_as<float>(sign | 0x7f800000u | magnitude << 13);  // infinity, NaN
    if (magnitude >= 0x0400u) return bits_as<float>(sign | ((magnitude << 13) + (112u << 23)));
    return bits_as<float>(sign | bits_as<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f));  // subnormal
}

inline F32x16 load_f32(const uint8_t* src) { return load<F32x16>(src); }

inline F32x16 load_f16(const uint8_t* src) {
    F32x16 out;
    for (int i = 0; i < 16; ++i) out.lane[i] = half_to_float(load<uint16_t>(src + 2 * i));
    return out;
}

inline F32x16 load_bf16(const uint8_t* src) {
    F32x16 out;
    for (int i = 0; i < 16; ++i) out.lane[i] = bits_as<float>(uint32_t{load<uint16_t>(src + 2 * i)} << 16);
    return out;
}

// Sixteen signed bytes as floats.
inline F32x16 widen(u8x16 codes) {
    F32x16 out;
    for (int i = 0; i < 16; ++i) out.lane[i] = static_cast<int8_t>(codes[i]);
    return out;
}

inline F32x16 operator*(F32x16 a, float b) {
    for (float& lane : a.lane) lane *= b;
    return a;
}

inline F32x16 operator-(F32x16 a, float b) {
    for (float& lane : a.lane) lane -= b;
    return a;
}

inline void store(float* dst, F32x16 a) { __builtin_memcpy(dst, &a, sizeof a); }

inline void store(uint16_t* dst, F32x16 a) {
    for (int i = 0; i < 16; ++i) dst[i] = static_cast<uint16_t>(bf16_bits(a.lane[i]));
}

// table[index[i]]; every index is below 16.
inline u8x16 lookup(u8x16 table, u8x16 index) {
    u8x16 out;
    for (int i = 0; i < 16; ++i) out[i] = table[index[i]];
    return out;
}
