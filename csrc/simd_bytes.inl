// Sixteen bytes at a time, for every instruction set: the compiler's own vectors, which are registers on x86
// and ARM alike. To be included inside an unnamed namespace (see dequantize_formats.inl for the reason).

using u8x16 = uint8_t __attribute__((vector_size(16)));
using i8x16 = int8_t __attribute__((vector_size(16)));
using u32x4 = uint32_t __attribute__((vector_size(16)));
using u64x2 = uint64_t __attribute__((vector_size(16)));

template <class T>
inline T load(const void* src) {  // at any alignment
    T value;
    __builtin_memcpy(&value, src, sizeof value);
    return value;
}

template <class To, class From>
inline To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    return load<To>(&value);
}

inline u8x16 load16(const uint8_t* src) { return load<u8x16>(src); }

// 0xff in each byte whose bit is set.
inline u8x16 byte_mask(uint16_t bits) {
    const u8x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint64_t every_byte = 0x0101010101010101u;
    const auto spread = (u8x16)(u64x2){(bits & 0xffu) * every_byte, (bits >> 8) * every_byte};
    return (u8x16)((spread & bit) == bit);
}

inline uint32_t bf16_bits(float value) {
    const auto bits = bits_as<uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40u;  // stays a NaN, made quiet
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;                  // to nearest, ties to even
}
