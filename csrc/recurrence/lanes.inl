// Floats side by side, in the compiler's own vectors. Here, unlike in decoding, the compiler may contract products
// and sums (CMakeLists.txt says so), and does where the CPU has such an instruction.

using F = float __attribute__((vector_size(4 * kLanes)));
using I = int32_t __attribute__((vector_size(4 * kLanes)));

inline F load(const float* p) {
    F v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

inline void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }

// The first `count` floats; the other lanes are zero.
inline F load_some(const float* p, int64_t count) {
    F v{};
    for (int64_t i = 0; i < count; ++i) v[i] = p[i];
    return v;
}

inline void store_some(float* p, F v, int64_t count) {
    for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}

template <int lanes>
using Floats __attribute__((vector_size(4 * lanes))) = float;

// The sum of the lanes: halves are added until two are left.
template <int lanes>
inline float sum_of(Floats<lanes> v) {
    if constexpr (lanes == 2) {
        return v[0] + v[1];
    } else {
        Floats<lanes / 2> halves[2];
        __builtin_memcpy(halves, &v, sizeof v);
        return sum_of<lanes / 2>(halves[0] + halves[1]);
    }
}

inline float sum(F v) { return sum_of<kLanes>(v); }

constexpr int64_t round_up(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Hands out parts of a workspace; without memory it only counts what is used.
struct Room {
    float* memory;
    int64_t used = 0;

    float* take(int64_t floats) {
        float* begin = memory ? memory + used : nullptr;
        used += round_up(floats);
        return begin;
    }
};

// e^x, right to about one unit of the last place: 0 where it would be subnormal, infinity from x = 88.4 on.
inline F exp(F x) {
    constexpr float lowest = -87.3f, highest = 88.4f;
    constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const I too_low = x<lowest, too_high = x> highest;
    const F inside = too_low ? F{} + lowest : too_high ? F{} + highest : x;
    const F shifted = inside * 1.44269504f + magic;
    const F n = shifted - magic;
    const F r = (inside - n * 0.693359375f) - n * -2.12194440e-4f;
    F p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const F fraction = (p * (r * r) + r) + 1.0f;
    I bits, offset;
    const F magics = F{} + magic;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    __builtin_memcpy(&offset, &magics, sizeof offset);
    bits = (bits - offset + 127) << 23;
    F power;
    __builtin_memcpy(&power, &bits, sizeof power);
    const F result = fraction * power;
    return too_low ? F{} : too_high ? F{} + __builtin_inff() : result;
}

// dst[i] = e^src[i].
inline void exp_of(const float* src, float* dst, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(dst + i, exp(load(src + i)));
    if (i < count) store_some(dst + i, exp(load_some(src + i, count - i)), count - i);
}
