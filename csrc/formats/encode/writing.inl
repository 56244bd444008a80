// Writing the fields of a block.

// Joins codes to bytes as `pack` in quants/bits.py does; `f` says which of their bits, and where.
template <Field f>
inline void put_codes(uint8_t* block, const uint8_t* codes) {
    static_assert(f.kind == Kind::codes);
    constexpr int per_byte = 8 / f.bits, mask = (1 << f.bits) - 1;
    uint8_t* dst = block + f.at;
    for (int start = 0; start < f.count; start += per_byte * f.run) {
        for (int i = 0; i < f.run; ++i) {
            int byte = 0;
            for (int j = 0; j < per_byte; ++j) {
                byte |= (codes[start + j * f.run + i] >> f.shift & mask) << f.bits * j;
            }
            *dst++ = static_cast<uint8_t>(byte);
        }
    }
}

// Number i of a field.
template <Field f, class T>
inline void put_number(uint8_t* block, int i, T number) {
    static_assert(sizeof number == f.bytes());
    __builtin_memcpy(block + f.at + f.step * i, &number, sizeof number);
}

template <Field f>
inline void put_bytes(uint8_t* block, const uint8_t* bytes) {
    static_assert(f.bytes() == 1 && f.step == 1);
    for (int i = 0; i < f.count; ++i) block[f.at + i] = bytes[i];
}

template <Field f>
inline void put_half(uint8_t* block, float x) {
    static_assert(f.kind == Kind::f16);
    put_number<f>(block, 0, half_bits(x));
}

// FP16 as they are stored where nothing was searched for: finite, but perhaps rounded to zero.
template <Field f>
inline void put_rounded(uint8_t* block, float x) {
    put_half<f>(block, x < -kLargestHalf ? -kLargestHalf : x > kLargestHalf ? kLargestHalf : x);
}
