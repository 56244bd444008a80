// How AVX2's dot products unpack each type: 16-bit codes, and a scale for each sub-block, so that
// weight = scale * code - offset. Types whose zero is not the code 0 have offset = zero * scale.
//
// `BlockDot<Type>` unpacks scales where it is constructed. `codes<part>()` are those of two sub-blocks, in the order of
// `Prepared`; `scale(i)` and `offset(i)` are eight sub-blocks', in the order kEvenOdd.

// Types that are not specialized are decoded first.
template <class Type>
struct BlockDot;

template <int vectors>
struct Codes {
    __m256i of[vectors];  // 16 each
};

template <int sub, Order order, bool offsets>
struct BlockTraits {
    using Prepared = Activations<sub, order>;
    using Activation = typename Prepared::Block;
    static constexpr bool has_offsets = offsets;
};

inline __m256i mask(__m256i v, int bits) { return _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(bits))); }

// Bits that cross bytes are the caller's to mask.
template <int n>
inline __m256i shift_left(__m256i v) {
    if constexpr (n > 0) return _mm256_slli_epi16(v, n);
    if constexpr (n < 0) return _mm256_srli_epi16(v, -n);
    return v;
}

// Thirty-two unsigned bytes in the order `halves`; if they are two runs of 16, each a half of another run of 32, they
// are a half of the order `pairs`.
inline Codes<2> widened(__m256i bytes) {
    const __m256i zero = _mm256_setzero_si256();
    return {{_mm256_unpacklo_epi8(bytes, zero), _mm256_unpackhi_epi8(bytes, zero)}};
}
inline Codes<4> widened(__m256i first, __m256i second) {
    const Codes<2> a = widened(first), b = widened(second);
    return {{a.of[0], a.of[1], b.of[0], b.of[1]}};
}

inline __m256 half_everywhere(const uint8_t* p) { return _mm256_set1_ps(half(p)); }

// Scales of sub-blocks in the order kEvenOdd. Those of two of them stand where vpmaddwd leaves the sums of their
// products: each in its half.
struct PairedScales {
    __m256 values;
    template <int pair>
    __m256 of() const {
        return _mm256_permute_ps(values, pair * 0x55);
    }
};

// The two words that eight blocks of 32 weights begin with, of all blocks in the order kEvenOdd.
template <int stride>
struct FirstWords {
    __m128i first, second;
    explicit FirstWords(const uint8_t* w) {
        const auto two = [w](int a, int b) {
            return _mm_unpacklo_epi16(SimdX86::load16(w + a * stride), SimdX86::load16(w + b * stride));
        };
        const __m128i even = _mm_unpacklo_epi32(two(0, 2), two(4, 6)), odd = _mm_unpacklo_epi32(two(1, 3), two(5, 7));
        first = _mm_unpacklo_epi64(even, odd);
        second = _mm_unpackhi_epi64(even, odd);
    }
};

// Sixteen bytes of each of two blocks.
inline __m256i load_two(const uint8_t* w, int64_t stride) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(SimdX86::load16(w)), SimdX86::load16(w + stride), 1);
}

// Blocks of 32 weights that begin with a half-precision scale. `zero` is the code that stands for zero.
template <class Type, int zero>
struct ScaledBlocks : BlockTraits<32, Order::pairs, zero != 0> {
    static constexpr int parts = 4;
    const uint8_t* w;
    __m256 scales;
    explicit ScaledBlocks(const uint8_t* w) : w(w), scales{_mm256_cvtph_ps(FirstWords<Type::type_size>(w).first)} {}
    __m256 scale(int) const { return scales; }
    __m256 offset(int) const { return _mm256_mul_ps(scales, _mm256_set1_ps(zero)); }
    template <int part>
    const uint8_t* pair() const {
        return w + 2 * part * Type::type_size;
    }
};

// Blocks of 32 weights that begin with a scale and an offset, which is added.
template <class Type>
struct OffsetBlocks : BlockTraits<32, Order::pairs, true> {
    static constexpr int parts = 4;
    const uint8_t* w;
    FirstWords<Type::type_size> words;
    __m256 scales;
    explicit OffsetBlocks(const uint8_t* w) : w(w), words(w), scales{_mm256_cvtph_ps(words.first)} {}
    __m256 scale(int) const { return scales; }
    __m256 offset(int) const { return _mm256_xor_ps(_mm256_cvtph_ps(words.second), _mm256_set1_ps(-0.0f)); }
    template <int part>
    const uint8_t* pair() const {
        return w + 2 * part * Type::type_size;
    }
};

// The low nibbles of two runs of 16 bytes, and the high ones.
struct NibblePairs {
    __m256i low, high;
    explicit NibblePairs(__m256i bytes) : low(mask(bytes, 15)), high(mask(shift_left<-4>(bytes), 15)) {}
};
template <class Type>
inline NibblePairs nibbles_of_two(const uint8_t* pair) {
    return NibblePairs(load_two(pair + Type::quants.at, Type::type_size));
}

// The fifth bits of the codes of two blocks: bit 4 of each byte.
template <class Type>
inline NibblePairs with_fifth_bits(const uint8_t* pair) {
    NibblePairs codes = nibbles_of_two<Type>(pair);
    const __m256i bits = load_two(pair + Type::high.at, Type::type_size);
    // Each byte gets the byte of the 32 bits that holds its own, then keeps that alone.
    const auto spread = [bits](int64_t holders) {
        const __m256i own = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
        const __m256i from =
            _mm256_set_epi64x(holders + 0x0101010101010101, holders, holders + 0x0101010101010101, holders);
        const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(bits, from), own), own);
        return mask(is_set, 1 << Type::high.shift);
    };
    codes.low = _mm256_or_si256(codes.low, spread(0));
    codes.high = _mm256_or_si256(codes.high, spread(0x0202020202020202));
    return codes;
}

template <>
struct BlockDot<Q4_0> : ScaledBlocks<Q4_0, Q4_0::quants.zero> {
    using ScaledBlocks::ScaledBlocks;
    template <int part>
    Codes<4> codes() const {
        const auto q = nibbles_of_two<Q4_0>(pair<part>());
        return widened(q.low, q.high);
    }
};

template <>
struct BlockDot<Q4_1> : OffsetBlocks<Q4_1> {
    using OffsetBlocks::OffsetBlocks;
    template <int part>
    Codes<4> codes() const {
        const auto q = nibbles_of_two<Q4_1>(pair<part>());
        return widened(q.low, q.high);
    }
};

template <>
struct BlockDot<Q5_0> : ScaledBlocks<Q5_0, Q5_0::quants.zero> {
    using ScaledBlocks::ScaledBlocks;
    template <int part>
    Codes<4> codes() const {
        const auto q = with_fifth_bits<Q5_0>(pair<part>());
        return widened(q.low, q.high);
    }
};

template <>
struct BlockDot<Q5_1> : OffsetBlocks<Q5_1> {
    using OffsetBlocks::OffsetBlocks;
    template <int part>
    Codes<4> codes() const {
        const auto q = with_fifth_bits<Q5_1>(pair<part>());
        return widened(q.low, q.high);
    }
};

template <>
struct BlockDot<Q8_0> : ScaledBlocks<Q8_0, 128> {
    using ScaledBlocks::ScaledBlocks;
    template <int part>
    Codes<4> codes() const {
        const auto sixteen = [this](int first) {
            return _mm256_xor_si256(load_two(pair<part>() + quants_at + first, Q8_0::type_size),
                                    _mm256_set1_epi8(-128));
        };
        return widened(sixteen(0), sixteen(16));
    }
    static constexpr int quants_at = Q8_0::quants.at;
};

// A table of sixteen with `zero` added to each, so that none is negative.
struct UnsignedTable {
    alignas(16) uint8_t values[16] = {};
    constexpr UnsignedTable(const CodeTable& table, int zero) {
        for (int i = 0; i < 16; ++i) values[i] = static_cast<uint8_t>(table.values[i] + zero);
    }
    Codes<4> operator()(NibblePairs index) const {
        const __m256i both = _mm256_broadcastsi128_si256(SimdX86::load16(values));
        return widened(_mm256_shuffle_epi8(both, index.low), _mm256_shuffle_epi8(both, index.high));
    }
};
constexpr UnsignedTable kUnsignedIQ4(kIQ4, 128);
constexpr UnsignedTable kUnsignedE2M1(kE2M1, 12);

template <>
struct BlockDot<IQ4_NL> : ScaledBlocks<IQ4_NL, 128> {
    using ScaledBlocks::ScaledBlocks;
    template <int part>
    Codes<4> codes() const {
        return kUnsignedIQ4(nibbles_of_two<IQ4_NL>(pair<part>()));
    }
};

// Halves of eight E8M0 bytes (parts.inl), each the low one of a word.
inline __m256 halves_of_e8m0(__m128i words) {
    const __m256i e = _mm256_and_si256(_mm256_cvtepu16_epi32(words), _mm256_set1_epi32(255));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

template <>
struct BlockDot<MXFP4> : ScaledBlocks<MXFP4, 12> {
    explicit BlockDot(const uint8_t* w) : ScaledBlocks(w) {
        scales = halves_of_e8m0(FirstWords<MXFP4::type_size>(w).first);
    }
    template <int part>
    Codes<4> codes() const {
        return kUnsignedE2M1(nibbles_of_two<MXFP4>(pair<part>()));
    }
};

template <>
struct BlockDot<IQ4_XS> : BlockTraits<32, Order::pairs, true> {
    static constexpr int parts = 4;
    const uint8_t* w;
    __m256 scales;
    explicit BlockDot(const uint8_t* w) : w(w) {
        const auto field = [](uint32_t bits, __m256i shifts, int kept) {
            const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
            return _mm256_and_si256(_mm256_srlv_epi32(all, shifts), _mm256_set1_epi32(kept));
        };
        const __m256i places = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kEvenOdd));
        const __m256i twice = _mm256_slli_epi32(places, 1);
        const __m256i low = field(load<uint32_t>(w + IQ4_XS::scales.at), _mm256_slli_epi32(places, 2), 15);
        const __m256i high = field(load<uint16_t>(w + IQ4_XS::scales_high.at), twice, 3);
        const __m256i codes = _mm256_or_si256(low, _mm256_slli_epi32(high, 4));
        const __m256 centred = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(IQ4_XS::scales.zero)));
        scales = _mm256_mul_ps(centred, half_everywhere(w + IQ4_XS::d.at));
    }
    __m256 scale(int) const { return scales; }
    __m256 offset(int) const { return _mm256_mul_ps(scales, _mm256_set1_ps(128)); }
    template <int part>
    Codes<4> codes() const {
        return kUnsignedIQ4(NibblePairs(SimdX86::load32(w + IQ4_XS::quants.at + 32 * part)));
    }
};

// The codes of 32 weights that a field stores in runs of `run` bytes, moved to their place in the whole code.
template <Field f, int group>
inline __m256i bits_of_group(const uint8_t* w) {
    static_assert(f.run == 32 || f.run == 64);
    constexpr int in_run = f.run / 32, per_byte = 8 / f.bits;
    constexpr int place = group % (in_run * per_byte);
    constexpr int at = f.at + group / (in_run * per_byte) * f.run + place % in_run * 32;
    constexpr int lowest = place / in_run * f.bits;
    return mask(shift_left<f.shift - lowest>(SimdX86::load32(w + at)), ((1 << f.bits) - 1) << f.shift);
}

// Sixteen signed bytes, in an order, as floats: sub-blocks 0 to 7 and 8 to 15, each in the order kEvenOdd.
struct SixteenScales {
    __m256 eight[2];
    SixteenScales(__m128i codes, __m256 factor) {
        const __m128i order = _mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0);
        const __m128i sorted = _mm_shuffle_epi8(codes, order);
        const __m128i first_last[] = {sorted, _mm_unpackhi_epi64(sorted, sorted)};
        for (int i = 0; i < 2; ++i) {
            eight[i] = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(first_last[i])), factor);
        }
    }
};

// Types with 16 signed scales of sub-blocks, and a code that stands for zero.
template <class Type, int zero>
struct SignedSuperBlock : BlockTraits<16, Order::halves, true> {
    static constexpr int parts = 8;
    const uint8_t* w;
    SixteenScales scales;
    SignedSuperBlock(const uint8_t* w, __m128i codes) : w(w), scales(codes, half_everywhere(w + Type::d.at)) {}
    __m256 scale(int i) const { return scales.eight[i]; }
    __m256 offset(int i) const { return _mm256_mul_ps(scales.eight[i], _mm256_set1_ps(zero)); }
};

template <>
struct BlockDot<Q2_K> : BlockTraits<16, Order::halves, true> {
    static constexpr int parts = 8;
    const uint8_t* w;
    SixteenScales scales, minima;
    explicit BlockDot(const uint8_t* w)
        : w(w),
          scales(_mm_and_si128(SimdX86::load16(w + Q2_K::scales.at), _mm_set1_epi8(15)),
                 half_everywhere(w + Q2_K::d.at)),
          minima(_mm_and_si128(_mm_srli_epi16(SimdX86::load16(w + Q2_K::scales.at), 4), _mm_set1_epi8(15)),
                 half_everywhere(w + Q2_K::dmin.at)) {}
    __m256 scale(int i) const { return scales.eight[i]; }
    __m256 offset(int i) const { return minima.eight[i]; }
    template <int part>
    Codes<2> codes() const {
        return widened(bits_of_group<Q2_K::quants, part>(w));
    }
};

template <>
struct BlockDot<Q3_K> : SignedSuperBlock<Q3_K, Q3_K::quants.zero> {
    explicit BlockDot(const uint8_t* w) : SignedSuperBlock(w, (__m128i)scales_of_q3_k(w)) {}
    template <int part>
    Codes<2> codes() const {
        return widened(_mm256_or_si256(bits_of_group<Q3_K::quants, part>(w), bits_of_group<Q3_K::high, part>(w)));
    }
};

template <>
struct BlockDot<Q6_K> : SignedSuperBlock<Q6_K, Q6_K::quants.zero> {
    explicit BlockDot(const uint8_t* w) : SignedSuperBlock(w, SimdX86::load16(w + Q6_K::scales.at)) {}
    template <int part>
    Codes<2> codes() const {
        return widened(_mm256_or_si256(bits_of_group<Q6_K::quants, part>(w), bits_of_group<Q6_K::high, part>(w)));
    }
};

// Q4_K and Q5_K: eight scales and eight minima of six bits (layouts.h).
template <class Type>
struct SuperBlockWithMinima : BlockTraits<32, Order::pairs, true> {
    static constexpr int parts = 4;
    const uint8_t* w;
    __m256 scales, minima;
    explicit SuperBlockWithMinima(const uint8_t* w) : w(w) {
        static_assert(Type::d.at == 0 && Type::dmin.at == 2 && Type::scales.at == 4);
        const __m128i head = SimdX86::load16(w);  // the factors, then the words a, b, c
        const __m128i acbc = _mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1));
        const __m128i aabb = _mm_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1));
        const __m128i low = _mm_and_si128(_mm_srlv_epi32(acbc, _mm_set_epi32(4, 0, 0, 0)),
                                          _mm_set_epi32(0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f));
        const __m128i high = _mm_and_si128(_mm_srli_epi32(aabb, 2), _mm_set_epi32(0x30303030, 0, 0x30303030, 0));
        const __m128i codes = _mm_or_si128(low, high);
        const __m128 factors = _mm_cvtph_ps(head);
        const __m128i sorted =
            _mm_shuffle_epi8(codes, _mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0));
        const auto eight = [](__m128i bytes, __m128 factor) {
            return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_broadcastss_ps(factor));
        };
        scales = eight(sorted, factors);
        minima = eight(_mm_unpackhi_epi64(sorted, sorted), _mm_movehdup_ps(factors));
    }
    __m256 scale(int) const { return scales; }
    __m256 offset(int) const { return minima; }
};

// The codes of 32 weights and of the next 32, in the order `pairs`.
inline Codes<4> widened_runs(__m256i first, __m256i second) {
    return widened(_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31));
}

template <>
struct BlockDot<Q4_K> : SuperBlockWithMinima<Q4_K> {
    using SuperBlockWithMinima::SuperBlockWithMinima;
    template <int group>
    __m256i bytes() const {
        return bits_of_group<Q4_K::quants, group>(w);
    }
    template <int part>
    Codes<4> codes() const {
        return widened_runs(bytes<2 * part>(), bytes<2 * part + 1>());
    }
};

template <>
struct BlockDot<Q5_K> : SuperBlockWithMinima<Q5_K> {
    using SuperBlockWithMinima::SuperBlockWithMinima;
    template <int group>
    __m256i bytes() const {
        return _mm256_or_si256(bits_of_group<Q5_K::quants, group>(w), bits_of_group<Q5_K::high, group>(w));
    }
    template <int part>
    Codes<4> codes() const {
        return widened_runs(bytes<2 * part>(), bytes<2 * part + 1>());
    }
};
