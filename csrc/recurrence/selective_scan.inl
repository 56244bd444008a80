// The selective scan of Mamba: a channel in each lane, position by position. No channel needs another one, and decays
// differ in every number of the state, so that chunks would save nothing.

constexpr int64_t kPositionsAhead = 4;  // a position's channels are far from the next one's: they are fetched early

// One position, whose state stays where it is: its numbers are the lanes. N must be whole vectors.
inline void selective_step(const SelectiveScan& p, int64_t batch, int64_t first, int64_t count) {
    const float *b = p.b + batch * p.n, *c = p.c + batch * p.n;
    for (int64_t channel = first; channel < first + count; ++channel) {
        const int64_t at = batch * p.channels + channel;
        const float step = p.step[at], added = step * p.x[at];
        F out{};
        for (int64_t i = 0; i < p.n; i += kLanes) {
            const F factor = exp(step * load(p.a + channel * p.n + i));
            const F s = factor * load(p.state + at * p.n + i) + added * load(b + i);
            store(p.new_state + at * p.n + i, s);
            out += s * load(c + i);
        }
        p.out[at] = sum(out);
    }
}

inline void compute_selective_scan(const SelectiveScan& p, int64_t task, float* workspace) {
    const int64_t blocks = round_up(p.channels) / kLanes;
    const int64_t batch = task / blocks, first = task % blocks * kLanes;
    const int64_t count = p.channels - first < kLanes ? p.channels - first : kLanes;
    const bool whole = count == kLanes;
    if (p.length == 1 && p.n % kLanes == 0) return selective_step(p, batch, first, count);
    const auto read = [&](const float* at) { return whole ? load(at) : load_some(at, count); };
    float *a = workspace, *state = workspace + p.n * kLanes;  // (N, kLanes)
    const float* from = p.state + (batch * p.channels + first) * p.n;
    float* to = p.new_state + (batch * p.channels + first) * p.n;
    transpose(p.a + first * p.n, p.n, a, kLanes, count, p.n);
    transpose(from, p.n, state, kLanes, count, p.n);
    for (int64_t t = 0; t < p.length; ++t) {
        const int64_t position = batch * p.length + t, at = position * p.channels + first;
        if (t + kPositionsAhead < p.length) {
            __builtin_prefetch(p.x + at + kPositionsAhead * p.channels);
            __builtin_prefetch(p.step + at + kPositionsAhead * p.channels);
        }
        const F step = read(p.step + at), added = step * read(p.x + at);
        const float *b = p.b + position * p.n, *c = p.c + position * p.n;
        F out{};
        for (int64_t i = 0; i < p.n; ++i) {
            const F s = exp(step * load(a + i * kLanes)) * load(state + i * kLanes) + added * b[i];
            store(state + i * kLanes, s);
            out += s * c[i];
        }
        if (whole) {
            store(p.out + at, out);
        } else {
            store_some(p.out + at, out, count);
        }
    }
    transpose(state, kLanes, to, p.n, p.n, count);
}

inline int64_t selective_scan_tasks(const SelectiveScan& p) { return p.batch * (round_up(p.channels) / kLanes); }
inline int64_t selective_scan_workspace(const SelectiveScan& p) { return 2 * p.n * kLanes; }
