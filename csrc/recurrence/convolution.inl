// A causal convolution of one channel, whose positions are neighbours.

template <int size>  // 0: any
inline void convolve_channel(const CausalConvolution& p, const float* x, const float* weight, float bias, float* out) {
    const int64_t taps = size ? size : p.size;
    int64_t t = 0;
    for (; t + kLanes <= p.length; t += kLanes) {
        F sums = F{} + bias;
        for (int64_t k = 0; k < taps; ++k) sums += weight[k] * load(x + t + k);
        store(out + t, sums);
    }
    for (; t < p.length; ++t) {
        float sum = bias;
        for (int64_t k = 0; k < taps; ++k) sum += weight[k] * x[t + k];
        out[t] = sum;
    }
}

constexpr int64_t kConvolved = 64;  // channels of a task, so that few positions are worth one

inline void compute_convolution(const CausalConvolution& p, int64_t task, float*) {
    const int64_t rows = p.batch * p.channels, first = task * kConvolved;
    const int64_t last = rows - first < kConvolved ? rows : first + kConvolved;
    for (int64_t row = first; row < last; ++row) {
        const int64_t channel = row % p.channels;
        const float *x = p.x + row * (p.length + p.size - 1), *weight = p.weight + channel * p.size;
        const float bias = p.bias ? p.bias[channel] : 0.0f;
        float* out = p.out + row * p.length;
        switch (p.size) {
            case 3:
                convolve_channel<3>(p, x, weight, bias, out);
                break;
            case 4:
                convolve_channel<4>(p, x, weight, bias, out);
                break;
            default:
                convolve_channel<0>(p, x, weight, bias, out);
        }
    }
}

inline int64_t convolution_tasks(const CausalConvolution& p) {
    return (p.batch * p.channels + kConvolved - 1) / kConvolved;
}

inline int64_t convolution_workspace(const CausalConvolution&) { return 0; }
