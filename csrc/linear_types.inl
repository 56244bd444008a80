// How the types with integer kernels are unpacked: unsigned bytes q, and a scale for each sub-block, so that
// weight = scale * q + offset. kZero is the q that stands for zero in types whose offset is -kZero * scale;
// the others fill `offset`. Layouts: ggml-common.h and ggml-quants.c of ggml.
//
// Types of 32-weight blocks unpack whole blocks: `unpack(block, stride)` takes Simd::kWidth / 32 of them, `stride`
// bytes apart. Types of 256 unpack 32-weight groups: `unpack<group>(block)` takes kWidth / 32 from `group` on.

inline uint16_t load_u16(const uint8_t* p) { uint16_t v; __builtin_memcpy(&v, p, 2); return v; }
inline uint32_t load_u32(const uint8_t* p) { uint32_t v; __builtin_memcpy(&v, p, 4); return v; }

// The n half-precision numbers at p, p + stride, ...; writes up to the next multiple of 16.
template <int stride>
inline void load_halves(const uint8_t* p, int64_t n, float* out) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        Simd::store_halves16(out + i, [&](int j) { return load_u16(p + (i + j) * stride); });
    }
    if (i < n) {
        Simd::store_halves16(out + i, [&](int j) { return i + j < n ? load_u16(p + (i + j) * stride) : uint16_t{0}; });
    }
}

struct ScaledBlock32 {  // a half-precision scale first, then the weights
    static constexpr int block = 32, sub = 32;
    static constexpr bool kHasOffsets = false;
};

struct OffsetBlock32 {  // a scale and an offset, both half precision, then the weights
    static constexpr int block = 32, sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
};

struct Q4_0 : ScaledBlock32 {
    static constexpr int id = 2, bytes = 18;
    static constexpr float kZero = 8;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) { load_halves<bytes>(w, n, scale); }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) { return Simd::nibbles16(w + 2, stride); }
};

struct Q4_1 : OffsetBlock32 {
    static constexpr int id = 3, bytes = 20;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_halves<bytes>(w, n, scale);
        load_halves<bytes>(w + 2, n, offset);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) { return Simd::nibbles16(w + 4, stride); }
};

struct Q5_0 : ScaledBlock32 {
    static constexpr int id = 6, bytes = 22;
    static constexpr float kZero = 16;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) { load_halves<bytes>(w, n, scale); }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::or_where(Simd::nibbles16(w + 6, stride), load_u32(w + 2), load_u32(w + 2 + stride), 0x10);
    }
};

struct Q5_1 : OffsetBlock32 {
    static constexpr int id = 7, bytes = 24;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_halves<bytes>(w, n, scale);
        load_halves<bytes>(w + 2, n, offset);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::or_where(Simd::nibbles16(w + 8, stride), load_u32(w + 4), load_u32(w + 4 + stride), 0x10);
    }
};

struct Q8_0 : ScaledBlock32 {
    static constexpr int id = 8, bytes = 34;
    static constexpr float kZero = 128;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) { load_halves<bytes>(w, n, scale); }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::flip_sign(Simd::bytes32(w + 2, stride));
    }
};

// The 16 values that 4 bits choose from, plus 128 (IQ4_NL, IQ4_XS) or 12 (MXFP4: the FP4 values, doubled).
alignas(16) constexpr uint8_t kNonLinearValues[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                      129, 141, 153, 166, 181, 197, 217, 241};
alignas(16) constexpr uint8_t kFp4Values[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

struct IQ4_NL : ScaledBlock32 {
    static constexpr int id = 20, bytes = 18;
    static constexpr float kZero = 128;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) { load_halves<bytes>(w, n, scale); }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::lookup(kNonLinearValues, Simd::nibbles16(w + 2, stride));
    }
};

struct MXFP4 : ScaledBlock32 {
    static constexpr int id = 39, bytes = 17;
    static constexpr float kZero = 12;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (int64_t i = 0; i < n; ++i) {
            // Half of 2^(e - 127); the two smallest are subnormal.
            const uint32_t e = w[i * bytes];
            const uint32_t bits = e < 2 ? 0x00200000u << e : (e - 1) << 23;
            __builtin_memcpy(scale + i, &bits, 4);
        }
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::lookup(kFp4Values, Simd::nibbles16(w + 1, stride));
    }
};

// 256 weights: two bits each at `low`, 32 groups' bytes shared by four groups.
template <int low, int group>
inline Simd::Bytes two_bits(const uint8_t* w) {
    constexpr int next = group + 1;
    const auto bits = Simd::groups<low + group / 4 * 32, group % 4 * 2, low + next / 4 * 32, next % 4 * 2>(w);
    return Simd::mask(bits, 3);
}

// 256 weights: four bits each at `low`; a group and the next share their bytes.
template <int low, int group>
inline Simd::Bytes four_bits(const uint8_t* w) {
    constexpr int next = group + 1;
    const auto bits = Simd::groups<low + group / 2 * 32, group % 2 * 4, low + next / 2 * 32, next % 2 * 4>(w);
    return Simd::mask(bits, 15);
}

struct Q2_K {
    static constexpr int id = 10, block = 256, bytes = 84, sub = 16;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        for (; n > 0; --n, w += bytes, scale += 16, offset += 16) {
            const float d = Simd::half(w + 80), dmin = -Simd::half(w + 82);
            for (int i = 0; i < 16; ++i) {
                scale[i] = d * static_cast<float>(w[i] & 15);
                offset[i] = dmin * static_cast<float>(w[i] >> 4);
            }
        }
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) { return two_bits<16, group>(w); }
};

struct Q3_K {
    static constexpr int id = 11, block = 256, bytes = 110, sub = 16;
    static constexpr bool kHasOffsets = false;
    static constexpr float kZero = 4;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (; n > 0; --n, w += bytes, scale += 16) {
            const float d = Simd::half(w + 108);
            const uint8_t* packed = w + 96;  // 8 bytes of low nibbles, 4 bytes of two high bits
            for (int i = 0; i < 16; ++i) {
                const int low = packed[i % 8] >> (i / 8 * 4) & 15;
                const int high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
                scale[i] = d * static_cast<float>((low | high << 4) - 32);
            }
        }
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        const auto high = Simd::groups<0, group, 0, group + 1>(w);
        return Simd::or_bits(two_bits<32, group>(w), Simd::shift_left<2>(Simd::mask(high, 1)));
    }
};

// The eight 6-bit scales and the eight 6-bit minima of Q4_K and Q5_K: 12 bytes.
inline void scales_and_minima(const uint8_t* w, float* scale, float* offset) {
    const float d = Simd::half(w), dmin = -Simd::half(w + 2);
    const uint32_t a = load_u32(w + 4), b = load_u32(w + 8), c = load_u32(w + 12);
    alignas(16) const uint32_t sixes[4] = {
        a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4,
        b & 0x3f3f3f3f, (c >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4};
    const auto* bytes = reinterpret_cast<const uint8_t*>(sixes);
    for (int i = 0; i < 8; ++i) {
        scale[i] = d * static_cast<float>(bytes[i]);
        offset[i] = dmin * static_cast<float>(bytes[8 + i]);
    }
}

struct Q4_K {
    static constexpr int id = 12, block = 256, bytes = 144, sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        for (int64_t i = 0; i < n; ++i) scales_and_minima(w + i * bytes, scale + 8 * i, offset + 8 * i);
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) { return four_bits<16, group>(w); }
};

struct Q5_K {
    static constexpr int id = 13, block = 256, bytes = 176, sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        for (int64_t i = 0; i < n; ++i) scales_and_minima(w + i * bytes, scale + 8 * i, offset + 8 * i);
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        const auto high = Simd::groups<16, group, 16, group + 1>(w);
        return Simd::or_bits(four_bits<48, group>(w), Simd::shift_left<4>(Simd::mask(high, 1)));
    }
};

struct Q6_K {
    static constexpr int id = 14, block = 256, bytes = 210, sub = 16;
    static constexpr bool kHasOffsets = false;
    static constexpr float kZero = 32;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (; n > 0; --n, w += bytes, scale += 16) {
            const float d = Simd::half(w + 208);
            for (int i = 0; i < 16; ++i) scale[i] = d * static_cast<float>(static_cast<int8_t>(w[192 + i]));
        }
    }
    // Each half of 128: groups 0 and 1 are the low nibbles of 64 bytes, groups 2 and 3 the high ones.
    static constexpr int low_offset(int group) { return group / 4 * 64 + group % 2 * 32; }
    static constexpr int low_shift(int group) { return group % 4 / 2 * 4; }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        constexpr int next = group + 1;
        const auto low = Simd::groups<low_offset(group), low_shift(group), low_offset(next), low_shift(next)>(w);
        const auto high = Simd::groups<128 + group / 4 * 32, group % 4 * 2, 128 + next / 4 * 32, next % 4 * 2>(w);
        return Simd::or_bits(Simd::mask(low, 15), Simd::shift_left<4>(Simd::mask(high, 3)));
    }
};

struct IQ4_XS {
    static constexpr int id = 23, block = 256, bytes = 136, sub = 32;
    static constexpr bool kHasOffsets = false;
    static constexpr float kZero = 128;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (; n > 0; --n, w += bytes, scale += 8) {
            const float d = Simd::half(w);
            const uint16_t high = load_u16(w + 2);
            for (int i = 0; i < 8; ++i) {
                const int low = w[4 + i / 2] >> (i % 2 * 4) & 15;
                scale[i] = d * static_cast<float>((low | (high >> 2 * i & 3) << 4) - 32);
            }
        }
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        return Simd::lookup(kNonLinearValues, Simd::nibbles16(w + 8 + 16 * group, 16));
    }
};
