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

// The runs of a problem, one after the other.
struct Runs {
    const Pointwise& p;
    const int inner = p.loops.count - 1;
    const int64_t length = p.loops.inner(), runs = (length + kRun - 1) / kRun;
    int64_t part;               // of the innermost loop
    int64_t at[kMaxDims] = {};  // steps of the outer loops
    int64_t out, in[kMaxInputs];

    Runs(const Pointwise& p, int64_t run) : p(p), part(run % runs) {
        int64_t left = run / runs;
        for (int i = inner - 1; i >= 0; --i) {
            at[i] = left % p.loops.sizes[i];
            left /= p.loops.sizes[i];
        }
        out = offset(p.out);
        for (int i = 0; i < p.inputs; ++i) in[i] = offset(p.in[i]);
    }

    int64_t begin() const { return part * kRun; }
    int64_t count() const { return length - begin() < kRun ? length - begin() : kRun; }

    void advance() {
        if (++part < runs) return;
        part = 0;
        for (int i = inner - 1; i >= 0; --i) {
            const bool wraps = ++at[i] == p.loops.sizes[i];
            const int64_t steps = wraps ? 1 - p.loops.sizes[i] : 1;
            out += steps * p.out.strides[i];
            for (int j = 0; j < p.inputs; ++j) in[j] += steps * p.in[j].strides[i];
            if (!wraps) return;
            at[i] = 0;
        }
    }

private:
    int64_t offset(const Stream& stream) const {
        int64_t result = 0;
        for (int i = 0; i < inner; ++i) result += at[i] * stream.strides[i];
        return result;
    }
};

template <class T>
inline void compute_pointwise(const Pointwise& p, const T* parameters, int64_t first_run, int64_t last_run) {
    const Body<T> body = bodies<T>()[static_cast<int>(p.function)];
    Runs runs(p, first_run);
    const int inner = runs.inner;
    const bool direct = p.out.dtype == kNative<T> && p.out.strides[inner] == 1;
    alignas(64) T buffers[kMaxInputs + 1][kRun];
    for (int64_t run = first_run; run < last_run; ++run, runs.advance()) {
        const int64_t begin = runs.begin(), n = runs.count();
        const T* in[kMaxInputs];
        for (int i = 0; i < p.inputs; ++i) {
            const int64_t stride = p.in[i].strides[inner];
            in[i] = run_of(p.in[i], runs.in[i] + begin * stride, stride, n, buffers[i]);
        }
        const int64_t to = runs.out + begin * p.out.strides[inner];
        T* out = direct ? reinterpret_cast<T*>(p.out.data) + to : buffers[kMaxInputs];
        body(out, in, n, parameters);
        if (!direct) store_run(out, p.out, to, p.out.strides[inner], n);
    }
}

// Bytes of equal size, moved without a look at them.
template <class T>
inline void move_runs(const Pointwise& p, int64_t first_run, int64_t last_run) {
    Runs runs(p, first_run);
    const int64_t from_stride = p.in[0].strides[runs.inner], to_stride = p.out.strides[runs.inner];
    for (int64_t run = first_run; run < last_run; ++run, runs.advance()) {
        const int64_t begin = runs.begin(), n = runs.count();
        const auto* from = reinterpret_cast<const T*>(p.in[0].data) + runs.in[0] + begin * from_stride;
        auto* to = reinterpret_cast<T*>(p.out.data) + runs.out + begin * to_stride;
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
