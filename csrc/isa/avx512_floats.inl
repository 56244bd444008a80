// Sixteen floats in one AVX-512 register. What each function does: isa/scalar.cpp.

struct F32x16 {
    __m512 all;
};

inline F32x16 load_f32(const uint8_t* src) { return load<F32x16>(src); }

inline F32x16 load_f16(const uint8_t* src) { return {_mm512_cvtph_ps(load<__m256i>(src))}; }

inline F32x16 load_bf16(const uint8_t* src) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load<__m256i>(src)), 16))};
}

inline F32x16 widen(u8x16 codes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)codes))}; }

inline F32x16 operator*(F32x16 a, float b) { return {_mm512_mul_ps(a.all, _mm512_set1_ps(b))}; }

inline F32x16 operator-(F32x16 a, float b) { return {_mm512_sub_ps(a.all, _mm512_set1_ps(b))}; }

inline void store(float* dst, F32x16 a) { __builtin_memcpy(dst, &a, sizeof a); }

inline void store(uint16_t* dst, F32x16 a) {
#if defined(TORCHGGUF_AVX512_BF16)
    __m256i out;  // in assembly, so that no other function may use this instruction set
    asm("vcvtneps2bf16 %1, %0" : "=v"(out) : "v"(a.all));
#else
    const __m512i bits = _mm512_castps_si512(a.all);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i kept =
        _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a.all, a.all, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
    const __m256i out = _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
#endif
    __builtin_memcpy(dst, &out, sizeof out);
}

inline u8x16 add_where(u8x16 codes, uint16_t bits, uint8_t value) {
    return (u8x16)_mm_mask_add_epi8((__m128i)codes, bits, (__m128i)codes, (__m128i)all_bytes(value));
}

inline u8x16 negate_where(u8x16 codes, uint16_t bits) {
    return (u8x16)_mm_mask_sub_epi8((__m128i)codes, bits, _mm_setzero_si128(), (__m128i)codes);
}
