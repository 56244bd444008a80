// Types that do not pack: one number an element, of any count.

template <class Element>
inline F32x16 load_numbers(const uint8_t* src) {
    float lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = static_cast<float>(load<Element>(src + i * sizeof(Element)));
    return load_f32(reinterpret_cast<const uint8_t*>(lanes));
}

inline F32x16 load_i8(const uint8_t* src) { return widen(load16(src)); }

template <class Type, F32x16 (*Load)(const uint8_t*)>
struct DecodePlain {
    template <class Out>
    static void row(const uint8_t* src, Out* dst, int64_t n) {
        constexpr int size = Type::type_size;
        int64_t i = 0;
        for (; i + 16 <= n; i += 16) store(dst + i, Load(src + i * size));
        if (i == n) return;
        uint8_t padded[16 * size] = {};
        Out out[16];
        __builtin_memcpy(padded, src + i * size, static_cast<size_t>(n - i) * size);
        store(out, Load(padded));
        __builtin_memcpy(dst + i, out, static_cast<size_t>(n - i) * sizeof(Out));
    }
};

template <>
struct Decode<F32> : DecodePlain<F32, load_f32> {};
template <>
struct Decode<F16> : DecodePlain<F16, load_f16> {};
template <>
struct Decode<BF16> : DecodePlain<BF16, load_bf16> {};
template <>
struct Decode<F64> : DecodePlain<F64, load_numbers<double>> {};
template <>
struct Decode<I8> : DecodePlain<I8, load_i8> {};
template <>
struct Decode<I16> : DecodePlain<I16, load_numbers<int16_t>> {};
template <>
struct Decode<I32> : DecodePlain<I32, load_numbers<int32_t>> {};
template <>
struct Decode<I64> : DecodePlain<I64, load_numbers<int64_t>> {};
