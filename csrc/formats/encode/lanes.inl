// What kLanes numbers do, beside what their instruction set does: the functions that a file of isa/ defines behind
// lane_types.inl are
//     min(a, b), max(a, b)        the second one if they are equal
//     look_up_8(table, index)     table[index] in each lane; every index is below 8
//     look_up(table, index)       the same; every index is below 16

inline F clamp(F x, float low, float high) { return min(max(x, all(low)), all(high)); }
inline F magnitude(F x) { return (F)((I)x & 0x7fffffff); }
inline F to_float(I x) { return __builtin_convertvector(x, F); }
inline I to_int(F x) { return __builtin_convertvector(x, I); }

// To the nearest integer, halves to the even one; |x| < 2^22.
inline F round(F x) {
    constexpr float shift = 0x1.8p23f;
    return (x + shift) - shift;
}

constexpr float kTiny = 0x1p-40f;  // see fitting.py

inline F inverse(F x) { return choose(magnitude(x) < kTiny * kTiny, F{}, 1.0f / x); }
inline F quotient(F a, F b) { return choose(b > 0.0f, a / b, F{}); }

// FP16 bits, to nearest even; |x| <= 65504.
inline uint16_t half_bits(float x) {
    const auto bits = bits_as<uint32_t>(x);
    const uint32_t sign = bits >> 16 & 0x8000u, positive = bits & 0x7fffffffu;
    if (positive < 0x38800000u) {  // subnormal: adding a half makes the unit of the last place 2^-24
        return static_cast<uint16_t>(sign | (bits_as<uint32_t>(bits_as<float>(positive) + 0.5f) & 0x7ffu));
    }
    const uint32_t rounded = positive + 0xfffu + (positive >> 13 & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

constexpr float kLargestHalf = 65504.0f, kSmallestHalf = 0x1p-24f;

// Rounded to FP16, but finite, and not to zero.
inline F stored_half(F x) {
    const F positive = clamp(magnitude(x), kSmallestHalf, kLargestHalf);
    const I bits = (I)positive;
    const F normal = (F)((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fff);
    const F subnormal = (positive + 0.5f) - 0.5f;  // as in half_bits
    const F half = choose(positive < 0x1p-14f, subnormal, normal);
    return choose(x < 0.0f, -half, choose(x > 0.0f, half, F{}));
}

// The numbers at these places of a and, from kLanes on, of b.
template <int... From, class V>
inline V shuffled(V a, V b) {
#if __has_builtin(__builtin_shufflevector)
    return __builtin_shufflevector(a, b, From...);
#else  // GCC before 12
    return __builtin_shuffle(a, b, I{From...});
#endif
}

// Transposes the squares of Size x Size numbers that stand side by side in Size vectors.
template <int Step, int... Lane, class V>
inline void swap_squares(V& a, V& b, Sequence<Lane...>) {
    const V first = shuffled<(Lane & Step ? Lane - Step + kLanes : Lane)...>(a, b);
    b = shuffled<(Lane & Step ? Lane + kLanes : Lane + Step)...>(a, b);
    a = first;
}
template <int Size, int Step = Size / 2, class V>
inline void transpose(V* rows) {
    if constexpr (Step > 0) {
        for (int i = 0; i < Size; ++i) {
            if (!(i & Step)) swap_squares<Step>(rows[i], rows[i + Step], EachLane{});
        }
        transpose<Size, Step / 2>(rows);
    }
}

// Writes `count` numbers (a multiple of kLanes) of each lane, which begin at `from[lane]`, to `to`.
inline void load_lanes(const float* const* from, int count, F* to) {
    for (int i = 0; i < count; i += kLanes) {
        for (int b = 0; b < kLanes; ++b) __builtin_memcpy(to + i + b, from[b] + i, sizeof(F));
        transpose<kLanes>(to + i);
    }
}

// The weights of kLanes blocks and their importance, transposed: all[i] holds each block's weight i. Blocks
// that are not there are zeros.
template <int BlockSize>
struct Tile {
    F x[BlockSize], w[BlockSize];

    Tile(const BlocksToEncode& blocks, int64_t first) {
        static constexpr float nothing[BlockSize] = {};
        const float* from[kLanes];
        for (int b = 0; b < kLanes; ++b) {
            from[b] = first + b < blocks.count ? blocks.src + (first + b) * BlockSize : nothing;
        }
        load_lanes(from, BlockSize, x);
        if (!blocks.importance) {
            for (F& weight : w) weight = all(1);
            return;
        }
        for (int b = 0; b < kLanes; ++b) {
            from[b] = blocks.importance + (blocks.first + first + b) * BlockSize % blocks.columns;
        }
        load_lanes(from, BlockSize, w);
    }

    // Makes the weights such that a search can bear them.
    void make_searchable() {
        for (F& weight : x) {
            weight = choose(magnitude(weight) < kTiny, F{}, clamp(weight, -1 / kTiny, 1 / kTiny));
        }
    }
};

// Small numbers of kLanes blocks, N (a power of two from 4 on) a block, as bytes in the order of a block; to
// be set in that order.
template <int N>
struct Codes {
    uint8_t of[kLanes][N];

    void set(int i, F code) {
        I& word = words[i / 4 % kSize];  // the bytes of four codes of each block
        word = (i % 4 ? word : I{}) | (to_int(code) & 255) << i % 4 * 8;
        if (i % (4 * kSize) != 4 * kSize - 1) return;
        transpose<kSize>(words);
        const int first = i / (4 * kSize) * (4 * kSize);
        const auto* bytes = reinterpret_cast<const uint8_t*>(words);
        for (int b = 0; b < kLanes; ++b) {
            const auto* row = bytes + sizeof(I) * (b % kSize);
            __builtin_memcpy(of[b] + first, row + 4 * kSize * (b / kSize), 4 * kSize);
        }
    }

private:
    static constexpr int kSize = N / 4 < kLanes ? N / 4 : kLanes;
    I words[kSize];
};
