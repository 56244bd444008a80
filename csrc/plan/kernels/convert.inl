// Elements of any dtype and stride as floats or as 64-bit integers, and back.

using U = uint32_t __attribute__((vector_size(4 * kLanes)));

inline float float_of_bits(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct Bf16 {
    uint16_t bits;
    operator float() const { return float_of_bits(uint32_t{bits} << 16); }
    static Bf16 of(float value) {
        const uint32_t b = bits_of_float(value);
        const uint32_t rounded = (b + 0x7fffu + (b >> 16 & 1u)) >> 16;  // to nearest, ties to even
        return {static_cast<uint16_t>(value != value ? 0x7fc0u : rounded)};
    }
};

#if defined(__F16C__)
struct F16 {
    uint16_t bits;
    operator float() const { return _cvtsh_ss(bits); }
    static F16 of(float value) { return {_cvtss_sh(value, 0)}; }
};
#else
struct F16 {
    uint16_t bits;
    operator float() const {
        const uint32_t magnitude = bits & 0x7fffu, sign = (bits & 0x8000u) << 16;
        const uint32_t normal = (magnitude << 13) + (112u << 23), special = magnitude << 13 | 0x7f800000u;
        const uint32_t subnormal = bits_of_float(static_cast<float>(static_cast<int>(magnitude)) * 0x1p-24f);
        return float_of_bits(sign | (magnitude < 0x0400u ? subnormal : magnitude < 0x7c00u ? normal : special));
    }
    // Rounds to nearest, ties to even.
    static F16 of(float value) {
        const uint32_t b = bits_of_float(value), magnitude = b & 0x7fffffffu;
        uint32_t half;
        if (magnitude >= 0x47800000u) {  // 65536 and above, infinity, NaN
            half = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
        } else if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 leaves the result in the lowest bits
            half = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
        } else {
            half = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
        }
        return {static_cast<uint16_t>(half | (b >> 16 & 0x8000u))};
    }
};
#endif

template <class T>
inline T element(const uint8_t* data, int64_t at) {
    T value;
    __builtin_memcpy(&value, data + at * int64_t{sizeof(T)}, sizeof value);
    return value;
}

template <class To, class From>
inline To converted(From value) {
    return static_cast<To>(value);
}
template <>
inline int64_t converted(Bf16 value) {
    return static_cast<int64_t>(static_cast<float>(value));
}
template <>
inline int64_t converted(F16 value) {
    return static_cast<int64_t>(static_cast<float>(value));
}
template <>
inline Bf16 converted(float value) {
    return Bf16::of(value);
}
template <>
inline F16 converted(float value) {
    return F16::of(value);
}
template <>
inline Bf16 converted(int64_t value) {
    return Bf16::of(static_cast<float>(value));
}
template <>
inline F16 converted(int64_t value) {
    return F16::of(static_cast<float>(value));
}
template <>
inline bool converted(float value) {
    return value != 0.0f;
}

// Elements side by side.
template <class From, class To>
inline void convert_run(const uint8_t* data, int64_t count, To* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = converted<To>(element<From>(data, i));
}

#if defined(__F16C__)
template <>
inline void convert_run<F16>(const uint8_t* data, int64_t count, float* to) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i halves;
        __builtin_memcpy(&halves, data + 2 * i, sizeof halves);
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(halves));
    }
    for (; i < count; ++i) to[i] = element<F16>(data, i);
}
#endif

template <class From, class To>
inline void load_run_of(const uint8_t* data, int64_t stride, int64_t count, To* to) {
    if (stride == 1) {
        convert_run<From>(data, count, to);
    } else if (stride == 0) {
        const To value = converted<To>(element<From>(data, 0));
        for (int64_t i = 0; i < count; ++i) to[i] = value;
    } else {
        for (int64_t i = 0; i < count; ++i) to[i] = converted<To>(element<From>(data, i * stride));
    }
}

// to[i] = the element at offset + i * stride.
template <class To>
inline void load_run(const Stream& from, int64_t offset, int64_t stride, int64_t count, To* to) {
    const uint8_t* data = from.data + offset * item_size(from.dtype);
    switch (from.dtype) {
        case DType::f32:
            return load_run_of<float>(data, stride, count, to);
        case DType::bf16:
            return load_run_of<Bf16>(data, stride, count, to);
        case DType::f16:
            return load_run_of<F16>(data, stride, count, to);
        case DType::i64:
            return load_run_of<int64_t>(data, stride, count, to);
        case DType::i32:
            return load_run_of<int32_t>(data, stride, count, to);
        case DType::u8:
        case DType::boolean:
            return load_run_of<uint8_t>(data, stride, count, to);
    }
}

template <class To, class From>
inline void store_run_of(const From* from, uint8_t* data, int64_t stride, int64_t count) {
    const auto put = [&](int64_t i, int64_t at) {
        const To value = converted<To>(from[i]);
        __builtin_memcpy(data + at * int64_t{sizeof(To)}, &value, sizeof value);
    };
    if (stride == 1) {
        for (int64_t i = 0; i < count; ++i) put(i, i);
    } else {
        for (int64_t i = 0; i < count; ++i) put(i, i * stride);
    }
}

template <class From>
inline void store_run(const From* from, const Stream& to, int64_t offset, int64_t stride, int64_t count) {
    uint8_t* data = to.data + offset * item_size(to.dtype);
    switch (to.dtype) {
        case DType::f32:
            return store_run_of<float>(from, data, stride, count);
        case DType::bf16:
            return store_run_of<Bf16>(from, data, stride, count);
        case DType::f16:
            return store_run_of<F16>(from, data, stride, count);
        case DType::i64:
            return store_run_of<int64_t>(from, data, stride, count);
        case DType::i32:
            return store_run_of<int32_t>(from, data, stride, count);
        case DType::u8:
            return store_run_of<uint8_t>(from, data, stride, count);
        case DType::boolean:
            return store_run_of<bool>(from, data, stride, count);
    }
}

template <class T>
constexpr DType kNative = DType::f32;
template <>
constexpr DType kNative<int64_t> = DType::i64;

// The elements themselves where they are T's side by side, else a copy of them in `buffer`.
template <class T>
inline const T* run_of(const Stream& from, int64_t offset, int64_t stride, int64_t count, T* buffer) {
    if (from.dtype == kNative<T> && stride == 1) return reinterpret_cast<const T*>(from.data) + offset;
    load_run(from, offset, stride, count, buffer);
    return buffer;
}

// Where the outer loops' step `index` begins in a stream.
inline int64_t offset_of(const Loops& loops, const Stream& stream, int64_t index, int count) {
    int64_t offset = 0;
    for (int i = count - 1; i >= 0; --i) {
        offset += index % loops.sizes[i] * stream.strides[i];
        index /= loops.sizes[i];
    }
    return offset;
}
