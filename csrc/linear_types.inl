// How the types with integer kernels are unpacked: unsigned bytes q, and a scale for each sub-block, so that
// weight = scale * q + offset. kZero is the q that stands for zero in types whose offset is -kZero * scale;
// the others fill `offset`. Layouts: ggml-common.h and ggml-quants.c of ggml.
//
// Types of 32-weight blocks unpack whole blocks: `unpack(block, stride)` takes Simd::kWidth / 32 of them, `stride`
// bytes apart. Types of 256 unpack 32-weight groups: `unpack<group>(block)` takes kWidth / 32 from `group` on.

// The n half-precision numbers at p, p + stride, ...: by sixteen, and the few that are left one by one.
template <int stride>
inline void load_halves(const uint8_t* p, int64_t n, float* out) {
    const auto bits = [p](int64_t i) { return load<uint16_t>(p + i * stride); };
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) Simd::store_halves16(out + i, [&](int j) { return bits(i + j); });
    for (; i < n; ++i) out[i] = half(p + i * stride);
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
        return Simd::or_where(Simd::nibbles16(w + 6, stride), w + 2, stride, 0x10);
    }
};

struct Q5_1 : OffsetBlock32 {
    static constexpr int id = 7, bytes = 24;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_halves<bytes>(w, n, scale);
        load_halves<bytes>(w + 2, n, offset);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::or_where(Simd::nibbles16(w + 8, stride), w + 4, stride, 0x10);
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

// A table of sixteen with `zero` added to each, so that none is negative.
struct UnsignedTable {
    alignas(16) uint8_t values[16] = {};
    constexpr UnsignedTable(const CodeTable& table, int zero) {
        for (int i = 0; i < 16; ++i) values[i] = static_cast<uint8_t>(table.values[i] + zero);
    }
    Simd::Bytes operator()(Simd::Bytes index) const { return Simd::lookup(values, index); }
};
constexpr UnsignedTable kUnsignedIQ4(kIQ4, 128);
constexpr UnsignedTable kUnsignedE2M1(kE2M1, 12);

struct IQ4_NL : ScaledBlock32 {
    static constexpr int id = 20, bytes = 18;
    static constexpr float kZero = 128;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) { load_halves<bytes>(w, n, scale); }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return kUnsignedIQ4(Simd::nibbles16(w + 2, stride));
    }
};

struct MXFP4 : ScaledBlock32 {
    static constexpr int id = 39, bytes = 17;
    static constexpr float kZero = 12;
    static void scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (int64_t i = 0; i < n; ++i) scale[i] = half_of_e8m0(w[i * bytes]);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return kUnsignedE2M1(Simd::nibbles16(w + 1, stride));
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
            put(scale, load16(w) & 15, half(w + 80));
            put(offset, load16(w) >> 4, -half(w + 82));
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
        for (; n > 0; --n, w += bytes, scale += 16) put(scale, scales_of_q3_k(w + 96), half(w + 108));
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        const auto high = Simd::groups<0, group, 0, group + 1>(w);
        return Simd::or_bits(two_bits<32, group>(w), Simd::shift_left<2>(Simd::mask(high, 1)));
    }
};

// The scales and minima of n blocks of Q4_K or Q5_K.
template <int bytes>
inline void load_scales_and_minima(const uint8_t* w, int64_t n, float* scale, float* offset) {
    for (; n > 0; --n, w += bytes, scale += 8, offset += 8) {
        const ScalesAndMinima s(w);
        for (int i = 0; i < 8; ++i) {
            scale[i] = s.scale(i);
            offset[i] = -s.minimum(i);
        }
    }
}

struct Q4_K {
    static constexpr int id = 12, block = 256, bytes = 144, sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_scales_and_minima<bytes>(w, n, scale, offset);
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) { return four_bits<16, group>(w); }
};

struct Q5_K {
    static constexpr int id = 13, block = 256, bytes = 176, sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_scales_and_minima<bytes>(w, n, scale, offset);
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
        for (; n > 0; --n, w += bytes, scale += 16) put(scale, load16(w + 192), half(w + 208));
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
            const ScalesOfIQ4_XS scales(w);
            for (int i = 0; i < 8; ++i) scale[i] = scales.scale(i);
        }
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        return kUnsignedIQ4(Simd::nibbles16(w + 8 + 16 * group, 16));
    }
};
