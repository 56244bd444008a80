// Blocks of 32 weights with one scale, and perhaps one offset.

// 32 weights from 16 bytes: the low nibbles, then the high ones.
struct Nibbles {
    u8x16 low, high;
    explicit Nibbles(const uint8_t* src) : low(load16(src) & 15), high(load16(src) >> 4) {}
    // Adds a fifth bit to each.
    Nibbles(const uint8_t* src, uint32_t fifth) : Nibbles(src) {
        low = add_where(low, static_cast<uint16_t>(fifth), 16);
        high = add_where(high, static_cast<uint16_t>(fifth >> 16), 16);
    }
};

// half; 16 bytes of nibbles
struct Q4_0 : Format<2, 32, 18> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        const Nibbles q(src + 2);
        put(dst, q.low - 8, scale);
        put(dst + 16, q.high - 8, scale);
    }
};

// half; half offset; nibbles
struct Q4_1 : Format<3, 32, 20> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src), minimum = -half(src + 2);
        const Nibbles q(src + 4);
        put(dst, q.low, scale, minimum);
        put(dst + 16, q.high, scale, minimum);
    }
};

// half; 32 fifth bits; nibbles
struct Q5_0 : Format<6, 32, 22> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        const Nibbles q(src + 6, load<uint32_t>(src + 2));
        put(dst, q.low - 16, scale);
        put(dst + 16, q.high - 16, scale);
    }
};

// half; half offset; 32 fifth bits; nibbles
struct Q5_1 : Format<7, 32, 24> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src), minimum = -half(src + 2);
        const Nibbles q(src + 8, load<uint32_t>(src + 4));
        put(dst, q.low, scale, minimum);
        put(dst + 16, q.high, scale, minimum);
    }
};

// half; 32 signed bytes
struct Q8_0 : Format<8, 32, 34> {
    template <class Out>
    static void decode(const uint8_t* src, Out* dst) {
        const float scale = half(src);
        put(dst, load16(src + 2), scale);
        put(dst + 16, load16(src + 18), scale);
    }
};
