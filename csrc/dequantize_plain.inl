// Types that are no packing: one number an element, of any count.

template <class Element>
inline F32x16 load_numbers(const uint8_t* src) {
    float lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = static_cast<float>(load<Element>(src + i * sizeof(Element)));
    return load_f32(reinterpret_cast<const uint8_t*>(lanes));
}

inline F32x16 load_i8(const uint8_t* src) { return widen(load16(src)); }

template <int Id, int TypeSize, F32x16 (*Load)(const uint8_t*)>
struct Plain : Format<Id, 1, TypeSize> {
    template <class Out>
    static void decode_row(const uint8_t* src, Out* dst, int64_t n) {
        int64_t i = 0;
        for (; i + 16 <= n; i += 16) store(dst + i, Load(src + i * TypeSize));
        if (i == n) return;
        uint8_t padded[16 * TypeSize] = {};
        Out out[16];
        __builtin_memcpy(padded, src + i * TypeSize, static_cast<size_t>(n - i) * TypeSize);
        store(out, Load(padded));
        __builtin_memcpy(dst + i, out, static_cast<size_t>(n - i) * sizeof(Out));
    }
};

using F32 = Plain<0, 4, load_f32>;
using F16 = Plain<1, 2, load_f16>;
using BF16 = Plain<30, 2, load_bf16>;
using F64 = Plain<28, 8, load_numbers<double>>;
using I8 = Plain<24, 1, load_i8>;
using I16 = Plain<25, 2, load_numbers<int16_t>>;
using I32 = Plain<26, 4, load_numbers<int32_t>>;
using I64 = Plain<27, 8, load_numbers<int64_t>>;
