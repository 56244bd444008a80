// How the types with integer kernels are unpacked: unsigned bytes q, and a scale for each sub-block, so that
// weight = scale * q + offset. kZero is the q that stands for zero in types whose offset is -kZero * scale;
// the others fill `offset`.
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

// Types that are not specialized are decoded first.
template <class Type>
struct Dot;

struct ScaledBlock32 {  // a half-precision scale first, then the weights
    static constexpr int sub = 32;
    static constexpr bool kHasOffsets = false;
};

struct OffsetBlock32 {  // a scale and an offset, both half precision, then the weights
    static constexpr int sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
};

template <>
struct Dot<Q4_0> : Q4_0, ScaledBlock32 {
    static constexpr float kZero = quants.zero;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        load_halves<type_size>(w + d.at, n, scale);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) { return Simd::nibbles16(w + quants.at, stride); }
};

template <>
struct Dot<Q4_1> : Q4_1, OffsetBlock32 {
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_halves<type_size>(w + d.at, n, scale);
        load_halves<type_size>(w + m.at, n, offset);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) { return Simd::nibbles16(w + quants.at, stride); }
};

template <>
struct Dot<Q5_0> : Q5_0, ScaledBlock32 {
    static constexpr float kZero = quants.zero;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        load_halves<type_size>(w + d.at, n, scale);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::or_where(Simd::nibbles16(w + quants.at, stride), w + high.at, stride, 1 << high.shift);
    }
};

template <>
struct Dot<Q5_1> : Q5_1, OffsetBlock32 {
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_halves<type_size>(w + d.at, n, scale);
        load_halves<type_size>(w + m.at, n, offset);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::or_where(Simd::nibbles16(w + quants.at, stride), w + high.at, stride, 1 << high.shift);
    }
};

template <>
struct Dot<Q8_0> : Q8_0, ScaledBlock32 {
    static constexpr float kZero = 128;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        load_halves<type_size>(w + d.at, n, scale);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return Simd::flip_sign(Simd::bytes32(w + quants.at, stride));
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

template <>
struct Dot<IQ4_NL> : IQ4_NL, ScaledBlock32 {
    static constexpr float kZero = 128;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        load_halves<type_size>(w + d.at, n, scale);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return kUnsignedIQ4(Simd::nibbles16(w + quants.at, stride));
    }
};

template <>
struct Dot<MXFP4> : MXFP4, ScaledBlock32 {
    static constexpr float kZero = 12;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (int64_t i = 0; i < n; ++i) scale[i] = half_of_e8m0(w[i * type_size + d.at]);
    }
    static Simd::Bytes unpack(const uint8_t* w, int64_t stride) {
        return kUnsignedE2M1(Simd::nibbles16(w + quants.at, stride));
    }
};

// The bits of a field that runs over 32 bytes: one bit a weight, shared by eight groups, in its place in the code.
template <Field f, int group>
inline Simd::Bytes one_bit(const uint8_t* w) {
    static_assert(f.bits == 1 && f.run == 32 && f.count == 256);
    const auto bits = Simd::groups<f.at, group, f.at, group + 1>(w);
    return Simd::shift_left<f.shift>(Simd::mask(bits, 1));
}

// Two bits a weight, shared by four groups.
template <Field f, int group>
inline Simd::Bytes two_bits(const uint8_t* w) {
    static_assert(f.bits == 2 && f.run == 32 && f.count == 256);
    constexpr int next = group + 1;
    const auto bits = Simd::groups<f.at + group / 4 * 32, group % 4 * 2, f.at + next / 4 * 32, next % 4 * 2>(w);
    return Simd::mask(bits, 3);
}

// Four bits a weight; a group and the next share their bytes.
template <Field f, int group>
inline Simd::Bytes four_bits(const uint8_t* w) {
    static_assert(f.bits == 4 && f.run == 32 && f.count == 256);
    constexpr int next = group + 1;
    const auto bits = Simd::groups<f.at + group / 2 * 32, group % 2 * 4, f.at + next / 2 * 32, next % 2 * 4>(w);
    return Simd::mask(bits, 15);
}

template <>
struct Dot<Q2_K> : Q2_K {
    static constexpr int sub = 16;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        for (; n > 0; --n, w += type_size, scale += 16, offset += 16) {
            put(scale, load16(w + scales.at) & 15, half(w + d.at));
            put(offset, load16(w + scales.at) >> 4, -half(w + dmin.at));
        }
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        return two_bits<quants, group>(w);
    }
};

template <>
struct Dot<Q3_K> : Q3_K {
    static constexpr int sub = 16;
    static constexpr bool kHasOffsets = false;
    static constexpr float kZero = quants.zero;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (; n > 0; --n, w += type_size, scale += 16) put(scale, scales_of_q3_k(w), half(w + d.at));
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        return Simd::or_bits(two_bits<quants, group>(w), one_bit<high, group>(w));
    }
};

// The scales and minima of n blocks of Q4_K or Q5_K.
template <class Type>
inline void load_scales_and_minima(const uint8_t* w, int64_t n, float* scale, float* offset) {
    for (; n > 0; --n, w += Type::type_size, scale += 8, offset += 8) {
        const ScalesAndMinima<Type> s(w);
        for (int i = 0; i < 8; ++i) {
            scale[i] = s.scale(i);
            offset[i] = -s.minimum(i);
        }
    }
}

template <>
struct Dot<Q4_K> : Q4_K {
    static constexpr int sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_scales_and_minima<Q4_K>(w, n, scale, offset);
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        return four_bits<quants, group>(w);
    }
};

template <>
struct Dot<Q5_K> : Q5_K {
    static constexpr int sub = 32;
    static constexpr bool kHasOffsets = true;
    static constexpr float kZero = 0;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float* offset) {
        load_scales_and_minima<Q5_K>(w, n, scale, offset);
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        return Simd::or_bits(four_bits<quants, group>(w), one_bit<high, group>(w));
    }
};

template <>
struct Dot<Q6_K> : Q6_K {
    static constexpr int sub = 16;
    static constexpr bool kHasOffsets = false;
    static constexpr float kZero = quants.zero;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (; n > 0; --n, w += type_size, scale += 16) put(scale, load16(w + scales.at), half(w + d.at));
    }
    // Each half of 128: groups 0 and 1 are the low nibbles of 64 bytes, groups 2 and 3 the high ones.
    static constexpr int low_offset(int group) { return quants.at + group / 4 * 64 + group % 2 * 32; }
    static constexpr int low_shift(int group) { return group % 4 / 2 * 4; }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        constexpr int next = group + 1;
        const auto low = Simd::groups<low_offset(group), low_shift(group), low_offset(next), low_shift(next)>(w);
        return Simd::or_bits(Simd::mask(low, 15), Simd::shift_left<high.shift>(two_bits<high, group>(w)));
    }
};

template <>
struct Dot<IQ4_XS> : IQ4_XS {
    static constexpr int sub = 32;
    static constexpr bool kHasOffsets = false;
    static constexpr float kZero = 128;
    static void load_scales(const uint8_t* w, int64_t n, float* scale, float*) {
        for (; n > 0; --n, w += type_size, scale += 8) {
            const ScalesOfIQ4_XS s(w);
            for (int i = 0; i < 8; ++i) scale[i] = s.scale(i);
        }
    }
    template <int group>
    static Simd::Bytes unpack(const uint8_t* w) {
        return kUnsignedIQ4(Simd::nibbles16(w + quants.at + 16 * group, 16));
    }
};
