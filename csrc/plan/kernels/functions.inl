// The functions themselves. Each has `of` for FP32 vectors (kFloats), for 64-bit integers (kIntegers), or for both.

template <class... Ts>
struct List {};

template <Function f, bool floats = true, bool integers = false>
struct Named {
    static constexpr Function function = f;
    static constexpr bool kFloats = floats, kIntegers = integers;
};

template <float (*f)(float)>
inline F by_lane(F x) {
    for (int i = 0; i < kLanes; ++i) x[i] = f(x[i]);
    return x;
}

inline F where_true(I condition) { return condition ? F{} + 1.0f : F{}; }
inline F maximum(F a, F b) {
    const I keeps = (a > b) | (a != a);
    return keeps ? a : b;
}
inline F minimum(F a, F b) {
    const I keeps = (a < b) | (a != a);
    return keeps ? a : b;
}
inline F absolute(F x) { return (F)((I)x & (I{} + 0x7fffffff)); }
inline F sqrt(F x) {
    for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
}
inline F sigmoid(F x) { return 1.0f / (1.0f + exp(-x)); }
inline F silu(F x) { return x / (1.0f + exp(-x)); }

// x (1 + tanh(u)) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
inline F gelu_tanh(F x) { return x / (1.0f + exp(-1.5957691216f * (x + 0.044715f * (x * x * x)))); }

inline F erf(F x) { return by_lane<__builtin_erff>(x); }
inline F gelu(F x) { return 0.5f * x * (1.0f + erf(x * 0.70710678118f)); }

// e^2x is far from one where x is not small; else the first terms of the series.
inline F tanh(F x) {
    const F a = absolute(x), square = x * x;
    const F large = 1.0f - 2.0f / (exp(2.0f * a) + 1.0f);
    const F signed_large = (F)(((I)large & (I{} + 0x7fffffff)) | ((I)x & (I{} + static_cast<int>(0x80000000u))));
    const F series =
        x * (1.0f +
             square * (-0.333333333f + square * (0.133333333f + square * (-0.0539682540f + square * 0.0218694885f))));
    const I is_small = a < 0.25f;
    return is_small ? series : signed_large;
}

inline float softplus_of(float x, float beta, float threshold) {
    return x * beta > threshold ? x : __builtin_log1pf(__builtin_expf(x * beta)) / beta;
}

// Quotients and remainders of the sign of the divisor, as Python has them; by zero: zero.
inline int64_t floor_quotient(int64_t a, int64_t b) {
    if (b == 0) return 0;
    if (b == -1) return static_cast<int64_t>(-static_cast<uint64_t>(a));
    const int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}
inline int64_t wrapped(uint64_t value) { return static_cast<int64_t>(value); }
inline uint64_t u(int64_t value) { return static_cast<uint64_t>(value); }

struct Copy : Named<Function::copy, true, true> {
    template <class V>
    static V of(V x, const auto*) {
        return x;
    }
};
struct Neg : Named<Function::neg, true, true> {
    static F of(F x, const float*) { return -x; }
    static int64_t of(int64_t x, const int64_t*) { return wrapped(-u(x)); }
};
struct Exp : Named<Function::exp> {
    static F of(F x, const float*) { return exp(x); }
};
struct Log : Named<Function::log> {
    static F of(F x, const float*) { return by_lane<__builtin_logf>(x); }
};
struct Log1p : Named<Function::log1p> {
    static F of(F x, const float*) { return by_lane<__builtin_log1pf>(x); }
};
struct Sqrt : Named<Function::sqrt> {
    static F of(F x, const float*) { return sqrt(x); }
};
struct Rsqrt : Named<Function::rsqrt> {
    static F of(F x, const float*) { return 1.0f / sqrt(x); }
};
struct Tanh : Named<Function::tanh> {
    static F of(F x, const float*) { return tanh(x); }
};
struct Sigmoid : Named<Function::sigmoid> {
    static F of(F x, const float*) { return sigmoid(x); }
};
struct Silu : Named<Function::silu> {
    static F of(F x, const float*) { return silu(x); }
};
struct Gelu : Named<Function::gelu> {
    static F of(F x, const float*) { return gelu(x); }
};
struct GeluTanh : Named<Function::gelu_tanh> {
    static F of(F x, const float*) { return gelu_tanh(x); }
};
struct Relu : Named<Function::relu, true, true> {
    static F of(F x, const float*) {
        const I below = x < 0.0f;
        return below ? F{} : x;
    }
    static int64_t of(int64_t x, const int64_t*) { return x < 0 ? 0 : x; }
};
struct Softplus : Named<Function::softplus> {
    static F of(F x, const float* p) {
        for (int i = 0; i < kLanes; ++i) x[i] = softplus_of(x[i], p[0], p[1]);
        return x;
    }
};
struct Abs : Named<Function::abs, true, true> {
    static F of(F x, const float*) { return absolute(x); }
    static int64_t of(int64_t x, const int64_t*) { return x < 0 ? wrapped(-u(x)) : x; }
};
struct Reciprocal : Named<Function::reciprocal> {
    static F of(F x, const float*) { return 1.0f / x; }
};
struct Square : Named<Function::square, true, true> {
    static F of(F x, const float*) { return x * x; }
    static int64_t of(int64_t x, const int64_t*) { return wrapped(u(x) * u(x)); }
};
struct Sin : Named<Function::sin> {
    static F of(F x, const float*) { return by_lane<__builtin_sinf>(x); }
};
struct Cos : Named<Function::cos> {
    static F of(F x, const float*) { return by_lane<__builtin_cosf>(x); }
};
struct LogicalNot : Named<Function::logical_not, true, true> {
    static F of(F x, const float*) { return where_true(x == 0.0f); }
    static int64_t of(int64_t x, const int64_t*) { return x == 0; }
};
struct Floor : Named<Function::floor> {
    static F of(F x, const float*) { return by_lane<__builtin_floorf>(x); }
};
struct Ceil : Named<Function::ceil> {
    static F of(F x, const float*) { return by_lane<__builtin_ceilf>(x); }
};
struct Round : Named<Function::round> {
    static F of(F x, const float*) { return by_lane<__builtin_nearbyintf>(x); }
};
struct Trunc : Named<Function::trunc> {
    static F of(F x, const float*) { return by_lane<__builtin_truncf>(x); }
};
struct Erf : Named<Function::erf> {
    static F of(F x, const float*) { return erf(x); }
};
struct Sign : Named<Function::sign, true, true> {
    static F of(F x, const float*) { return where_true(x > 0.0f) - where_true(x < 0.0f); }
    static int64_t of(int64_t x, const int64_t*) { return (x > 0) - (x < 0); }
};
struct Clamp : Named<Function::clamp, true, true> {
    static F of(F x, const float* p) {
        const I below = x < p[0];
        const F raised = below ? F{} + p[0] : x;
        const I above = raised > p[1];
        return above ? F{} + p[1] : raised;
    }
    static int64_t of(int64_t x, const int64_t* p) {
        const int64_t raised = x < p[0] ? p[0] : x;
        return raised > p[1] ? p[1] : raised;
    }
};

using Unary = List<Copy, Neg, Exp, Log, Log1p, Sqrt, Rsqrt, Tanh, Sigmoid, Silu, Gelu, GeluTanh, Relu, Softplus, Abs,
                   Reciprocal, Square, Sin, Cos, LogicalNot, Floor, Ceil, Round, Trunc, Erf, Sign, Clamp>;

struct Add : Named<Function::add, true, true> {
    static F of(F a, F b, const float* p) { return a + p[0] * b; }
    static int64_t of(int64_t a, int64_t b, const int64_t* p) { return wrapped(u(a) + u(p[0]) * u(b)); }
};
struct Sub : Named<Function::sub, true, true> {
    static F of(F a, F b, const float* p) { return a - p[0] * b; }
    static int64_t of(int64_t a, int64_t b, const int64_t* p) { return wrapped(u(a) - u(p[0]) * u(b)); }
};
struct Rsub : Named<Function::rsub, true, true> {
    static F of(F a, F b, const float* p) { return b - p[0] * a; }
    static int64_t of(int64_t a, int64_t b, const int64_t* p) { return wrapped(u(b) - u(p[0]) * u(a)); }
};
struct Mul : Named<Function::mul, true, true> {
    static F of(F a, F b, const float*) { return a * b; }
    static int64_t of(int64_t a, int64_t b, const int64_t*) { return wrapped(u(a) * u(b)); }
};
struct Div : Named<Function::div> {
    static F of(F a, F b, const float*) { return a / b; }
};
struct Max : Named<Function::max, true, true> {
    static F of(F a, F b, const float*) { return maximum(a, b); }
    static int64_t of(int64_t a, int64_t b, const int64_t*) { return a > b ? a : b; }
};
struct Min : Named<Function::min, true, true> {
    static F of(F a, F b, const float*) { return minimum(a, b); }
    static int64_t of(int64_t a, int64_t b, const int64_t*) { return a < b ? a : b; }
};
struct Pow : Named<Function::pow> {
    static F of(F a, F b, const float*) {
        for (int i = 0; i < kLanes; ++i) a[i] = __builtin_powf(a[i], b[i]);
        return a;
    }
};

#define TORCHGGUF_COMPARISON(Name, function, symbol)                                   \
    struct Name : Named<Function::function, true, true> {                              \
        static F of(F a, F b, const float*) { return where_true(a symbol b); }         \
        static int64_t of(int64_t a, int64_t b, const int64_t*) { return a symbol b; } \
    }
TORCHGGUF_COMPARISON(Eq, eq, ==);
TORCHGGUF_COMPARISON(Ne, ne, !=);
TORCHGGUF_COMPARISON(Lt, lt, <);
TORCHGGUF_COMPARISON(Le, le, <=);
TORCHGGUF_COMPARISON(Gt, gt, >);
TORCHGGUF_COMPARISON(Ge, ge, >=);
#undef TORCHGGUF_COMPARISON

struct BitAnd : Named<Function::bit_and, false, true> {
    static int64_t of(int64_t a, int64_t b, const int64_t*) { return a & b; }
};
struct BitOr : Named<Function::bit_or, false, true> {
    static int64_t of(int64_t a, int64_t b, const int64_t*) { return a | b; }
};
struct BitXor : Named<Function::bit_xor, false, true> {
    static int64_t of(int64_t a, int64_t b, const int64_t*) { return a ^ b; }
};
struct FloorDiv : Named<Function::floordiv, true, true> {
    static F of(F a, F b, const float*) { return by_lane<__builtin_floorf>(a / b); }
    static int64_t of(int64_t a, int64_t b, const int64_t*) { return floor_quotient(a, b); }
};
struct Remainder : Named<Function::remainder, true, true> {
    static F of(F a, F b, const float*) {
        for (int i = 0; i < kLanes; ++i) {
            const float rest = __builtin_fmodf(a[i], b[i]);
            a[i] = rest != 0.0f && (rest < 0.0f) != (b[i] < 0.0f) ? rest + b[i] : rest;
        }
        return a;
    }
    static int64_t of(int64_t a, int64_t b, const int64_t*) {
        return b == 0 ? 0 : wrapped(u(a) - u(floor_quotient(a, b)) * u(b));
    }
};
struct SiluMul : Named<Function::silu_mul> {
    static F of(F a, F b, const float*) { return silu(a) * b; }
};
struct GeluMul : Named<Function::gelu_mul> {
    static F of(F a, F b, const float*) { return gelu(a) * b; }
};
struct GeluTanhMul : Named<Function::gelu_tanh_mul> {
    static F of(F a, F b, const float*) { return gelu_tanh(a) * b; }
};

using Binary = List<Add, Sub, Rsub, Mul, Div, Max, Min, Pow, Eq, Ne, Lt, Le, Gt, Ge, BitAnd, BitOr, BitXor, FloorDiv,
                    Remainder, SiluMul, GeluMul, GeluTanhMul>;

struct Where : Named<Function::where, true, true> {
    static F of(F condition, F a, F b, const float*) {
        const I is_true = condition != 0.0f;
        return is_true ? a : b;
    }
    static int64_t of(int64_t condition, int64_t a, int64_t b, const int64_t*) { return condition ? a : b; }
};
struct AddCMul : Named<Function::addcmul, true, true> {
    static F of(F a, F b, F c, const float* p) { return a + p[0] * b * c; }
    static int64_t of(int64_t a, int64_t b, int64_t c, const int64_t* p) {
        return wrapped(u(a) + u(p[0]) * u(b) * u(c));
    }
};

using Ternary = List<Where, AddCMul>;
