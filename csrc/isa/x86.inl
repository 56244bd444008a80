// What AVX2 and AVX-512 have in common: of the floats that isa/scalar.cpp explains, and of `Simd`, which dot products
// are written in.

inline float half_to_float(uint16_t half) { return _cvtsh_ss(half); }

inline u8x16 lookup(u8x16 table, u8x16 index) { return (u8x16)_mm_shuffle_epi8((__m128i)table, (__m128i)index); }

struct SimdX86 {
    static void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
    static uint32_t load_u32(const uint8_t* p) { return load<uint32_t>(p); }
    static __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
    static __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

    // 16 half-precision numbers, given by their bits. Inserting them one by one into a register beats a gather on
    // every CPU but a few, and beats a detour through memory, whose narrow stores a wide load has to wait for.
    struct Halves16 {
        __m128i low, high;
    };
    template <class Bits>
    static Halves16 gather_halves16(Bits bits) {
        return {_mm_set_epi16(bits(7), bits(6), bits(5), bits(4), bits(3), bits(2), bits(1), bits(0)),
                _mm_set_epi16(bits(15), bits(14), bits(13), bits(12), bits(11), bits(10), bits(9), bits(8))};
    }

    // The factors that bring numbers of at most `largest` to integers of at most `max`, and back. Numbers too
    // small for the first to be finite, and some to spare, count as zero.
    struct Scaling {
        float there, back;
    };
    static Scaling scaling(float largest, float max) {
        return largest > 1e-30f ? Scaling{max / largest, largest / max} : Scaling{0.0f, 0.0f};
    }
};
