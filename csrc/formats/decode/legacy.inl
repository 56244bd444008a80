// Blocks of 32 weights with one scale, and perhaps one offset.

template <>
struct Decode<Q4_0> : Q4_0 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
        const Nibbles q(src + quants.at);
        put(dst, q.low - quants.zero, scale);
        put(dst + 16, q.high - quants.zero, scale);
    }
};

template <>
struct Decode<Q4_1> : Q4_1 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at), minimum = -half(src + m.at);
        const Nibbles q(src + quants.at);
        put(dst, q.low, scale, minimum);
        put(dst + 16, q.high, scale, minimum);
    }
};

template <>
struct Decode<Q5_0> : Q5_0 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
        const Nibbles q(src + quants.at, load<uint32_t>(src + high.at));
        put(dst, q.low - quants.zero, scale);
        put(dst + 16, q.high - quants.zero, scale);
    }
};

template <>
struct Decode<Q5_1> : Q5_1 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at), minimum = -half(src + m.at);
        const Nibbles q(src + quants.at, load<uint32_t>(src + high.at));
        put(dst, q.low, scale, minimum);
        put(dst + 16, q.high, scale, minimum);
    }
};

template <>
struct Decode<Q8_0> : Q8_0 {
    template <class Out>
    static void block(const uint8_t* src, Out* dst) {
        const float scale = half(src + d.at);
        put(dst, load16(src + quants.at), scale);
        put(dst + 16, load16(src + quants.at + 16), scale);
    }
};
