// Functions of numbers, element by element: in FP32 vectors, or in 64-bit integers.

#include "plan/kernels/functions.inl"

template <class T>
using Body = void (*)(T* out, const T* const* in, int64_t n, const T* parameters);

// f is a struct with `static V of(V..., const T* parameters)`.
template <class f, int inputs>
inline void float_body(float* out, const float* const* in, int64_t n, const float* parameters) {
    const auto at = [&](auto load_one, int64_t i) {
        if constexpr (inputs == 1) {
            return f::of(load_one(in[0] + i), parameters);
        } else if constexpr (inputs == 2) {
            return f::of(load_one(in[0] + i), load_one(in[1] + i), parameters);
        } else {
            return f::of(load_one(in[0] + i), load_one(in[1] + i), load_one(in[2] + i), parameters);
        }
    };
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + i, at([](const float* p) { return load(p); }, i));
    const int64_t left = n - i;
    if (left) store_some(out + i, at([left](const float* p) { return load_some(p, left); }, i), left);
}

template <class f, int inputs>
inline void integer_body(int64_t* out, const int64_t* const* in, int64_t n, const int64_t* parameters) {
    for (int64_t i = 0; i < n; ++i) {
        if constexpr (inputs == 1) {
            out[i] = f::of(in[0][i], parameters);
        } else if constexpr (inputs == 2) {
            out[i] = f::of(in[0][i], in[1][i], parameters);
        } else {
            out[i] = f::of(in[0][i], in[1][i], in[2][i], parameters);
        }
    }
}

struct Bodies {
    Body<float> floats[static_cast<int>(Function::count)] = {};
    Body<int64_t> integers[static_cast<int>(Function::count)] = {};

    template <class f, int inputs>
    consteval void add() {
        if constexpr (requires { &float_body<f, inputs>; } && f::kFloats) {
            floats[static_cast<int>(f::function)] = &float_body<f, inputs>;
        }
        if constexpr (f::kIntegers) integers[static_cast<int>(f::function)] = &integer_body<f, inputs>;
    }

    template <int inputs, class... fs>
    consteval void add_all(List<fs...>) {
        (add<fs, inputs>(), ...);
    }

    consteval Bodies() {
        add_all<1>(Unary{});
        add_all<2>(Binary{});
        add_all<3>(Ternary{});
    }
};

constexpr Bodies kBodies;

template <class T>
constexpr const Body<T>* bodies() {
    if constexpr (sizeof(T) == sizeof(float)) {
        return kBodies.floats;
    } else {
        return kBodies.integers;
    }
}

template <class T>
inline void compute_pointwise(const Pointwise& p, const T* parameters, int64_t first_run, int64_t last_run) {
    const Body<T> body = bodies<T>()[static_cast<int>(p.function)];
    const int inner = p.loops.count - 1;
    const int64_t length = p.loops.inner(), runs = (length + kRun - 1) / kRun;
    const bool direct = p.out.dtype == kNative<T> && p.out.strides[inner] == 1;
    alignas(64) T buffers[kMaxInputs + 1][kRun];
    for (int64_t run = first_run; run < last_run; ++run) {
        const int64_t begin = run % runs * kRun, n = length - begin < kRun ? length - begin : kRun;
        const auto offset = [&](const Stream& stream) {
            return offset_of(p.loops, stream, run / runs, inner) + begin * stream.strides[inner];
        };
        const T* in[kMaxInputs];
        for (int i = 0; i < p.inputs; ++i) {
            in[i] = run_of(p.in[i], offset(p.in[i]), p.in[i].strides[inner], n, buffers[i]);
        }
        const int64_t to = offset(p.out);
        T* out = direct ? reinterpret_cast<T*>(p.out.data) + to : buffers[kMaxInputs];
        body(out, in, n, parameters);
        if (!direct) store_run(out, p.out, to, p.out.strides[inner], n);
    }
}

// Bytes of equal size, moved without a look at them.
template <class T>
inline void move_runs(const Pointwise& p, int64_t first_run, int64_t last_run) {
    const int inner = p.loops.count - 1;
    const int64_t length = p.loops.inner(), runs = (length + kRun - 1) / kRun;
    const int64_t from_stride = p.in[0].strides[inner], to_stride = p.out.strides[inner];
    for (int64_t run = first_run; run < last_run; ++run) {
        const int64_t begin = run % runs * kRun, n = length - begin < kRun ? length - begin : kRun;
        const auto* from = reinterpret_cast<const T*>(p.in[0].data) + offset_of(p.loops, p.in[0], run / runs, inner) +
                           begin * from_stride;
        auto* to = reinterpret_cast<T*>(p.out.data) + offset_of(p.loops, p.out, run / runs, inner) + begin * to_stride;
        if (from_stride == 1 && to_stride == 1) {
            __builtin_memmove(to, from, n * sizeof(T));
        } else {
            for (int64_t i = 0; i < n; ++i) to[i * to_stride] = from[i * from_stride];
        }
    }
}

inline void pointwise(const Pointwise& p, int64_t first_run, int64_t last_run) {
    if (p.function == Function::copy && p.in[0].dtype == p.out.dtype) {
        switch (item_size(p.out.dtype)) {
            case 1:
                return move_runs<uint8_t>(p, first_run, last_run);
            case 2:
                return move_runs<uint16_t>(p, first_run, last_run);
            case 4:
                return move_runs<uint32_t>(p, first_run, last_run);
            default:
                return move_runs<uint64_t>(p, first_run, last_run);
        }
    }
    if (p.integers) return compute_pointwise<int64_t>(p, p.integer_parameters, first_run, last_run);
    return compute_pointwise<float>(p, p.parameters, first_run, last_run);
}

inline bool has(Function function, bool integers) {
    const int i = static_cast<int>(function);
    return integers ? kBodies.integers[i] != nullptr : kBodies.floats[i] != nullptr;
}
