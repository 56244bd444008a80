// What AVX2 and AVX-512 have in common. What each function does: simd_scalar.inl.

inline float half_to_float(uint16_t half) { return _cvtsh_ss(half); }

inline u8x16 lookup(u8x16 table, u8x16 index) {
    return (u8x16)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
}
