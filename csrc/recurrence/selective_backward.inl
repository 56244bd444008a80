// The gradients of the selective scan, of a slice of the channels: some positions at a time, from the end.

constexpr int64_t kScanned = 64;  // positions whose states are in memory

struct ScanGradients {
    float *a, *state;         // (N, kLanes)
    float *factors, *states;  // (kScanned, N, kLanes): on the states, and after each position
    float *b, *c;             // (kScanned, N, kLanes): sums over blocks of channels
    float* starts;            // (blocks, chunks, N, kLanes): states before each chunk
    float *carried, *by_a;    // (blocks, N, kLanes): gradients of the state after the chunk, and of a

    ScanGradients(const SelectiveScan& p, int64_t blocks, Room& room) {
        const int64_t size = p.n * kLanes, chunks = (p.length + kScanned - 1) / kScanned;
        a = room.take(size), state = room.take(size);
        float** const scanned[] = {&factors, &states, &b, &c};
        for (float** rows : scanned) *rows = room.take(kScanned * size);
        starts = room.take(blocks * chunks * size);
        carried = room.take(blocks * size), by_a = room.take(blocks * size);
    }
};

// Some channels of a batch's text, in the lanes.
struct ScanBlock {
    int64_t batch, first, count;

    F read(const float* rows, const SelectiveScan& p, int64_t t) const {
        const float* at = rows + (batch * p.length + t) * p.channels + first;
        return count == kLanes ? load(at) : load_some(at, count);
    }
    void write(float* rows, const SelectiveScan& p, int64_t t, F v) const {
        float* at = rows + (batch * p.length + t) * p.channels + first;
        if (count == kLanes) {
            store(at, v);
        } else {
            store_some(at, v, count);
        }
    }
    // (channels, N) to (N, kLanes); lanes without a channel are zero.
    void turn(const float* rows, int64_t n, float* to) const {
        __builtin_memset(to, 0, n * kLanes * sizeof(float));
        transpose(rows + first * n, n, to, kLanes, count, n);
    }
};

// Moves g.state over some positions; keeps what is on the way if `keep`.
inline void scan_positions(const SelectiveScan& p, const ScanGradients& g, const ScanBlock& block, int64_t begin,
                           int64_t end, bool keep) {
    for (int64_t t = begin; t < end; ++t) {
        const F step = block.read(p.step, p, t), added = step * block.read(p.x, p, t);
        const float* b = p.b + (block.batch * p.length + t) * p.n;
        float *factors = g.factors + (t - begin) * p.n * kLanes, *states = g.states + (t - begin) * p.n * kLanes;
        for (int64_t i = 0; i < p.n; ++i) {
            const F factor = exp(step * load(g.a + i * kLanes));
            const F s = factor * load(g.state + i * kLanes) + added * b[i];
            store(g.state + i * kLanes, s);
            if (keep) store(factors + i * kLanes, factor), store(states + i * kLanes, s);
        }
    }
}

inline void scan_backward(const SelectiveScanBackward& w, const ScanGradients& g, const ScanBlock& block,
                          const float* start, float* carried, float* by_a, int64_t begin, int64_t end) {
    const SelectiveScan& p = w.forward;
    const int64_t size = p.n * kLanes;
    for (int64_t t = end - 1; t >= begin; --t) {
        const F step = block.read(p.step, p, t), x = block.read(p.x, p, t), grad = block.read(w.grad_out, p, t);
        const float *b = p.b + (block.batch * p.length + t) * p.n, *c = p.c + (block.batch * p.length + t) * p.n;
        const int64_t at = (t - begin) * size;
        const float* before = t == begin ? start : g.states + at - size;
        const F added = step * x;
        F by_added{}, by_step{};
        for (int64_t i = 0; i < size; i += kLanes) {
            const int64_t n = i / kLanes;
            const F factor = load(g.factors + at + i), state = load(carried + i) + grad * c[n];
            store(g.c + at + i, load(g.c + at + i) + grad * load(g.states + at + i));
            store(g.b + at + i, load(g.b + at + i) + state * added);
            by_added += state * b[n];
            const F carry = state * factor, decay = carry * load(before + i);
            store(by_a + i, load(by_a + i) + decay * step);
            by_step += decay * load(g.a + i);
            store(carried + i, carry);
        }
        block.write(w.x, p, t, step * by_added);
        block.write(w.step, p, t, x * by_added + by_step);
    }
}

inline int64_t blocks_of_slice(const SelectiveScanBackward& w) {
    const int64_t blocks = round_up(w.forward.channels) / kLanes;
    return (blocks + w.slices - 1) / w.slices;
}

inline void compute_selective_backward(const SelectiveScanBackward& w, int64_t task, float* workspace) {
    const SelectiveScan& p = w.forward;
    const int64_t batch = task / w.slices, slice = task % w.slices, size = p.n * kLanes;
    const int64_t most = blocks_of_slice(w), chunks = (p.length + kScanned - 1) / kScanned;
    Room room{workspace};
    const ScanGradients g(p, most, room);
    const auto block_at = [&](int64_t i) {
        const int64_t first = (slice * most + i) * kLanes, rest = p.channels - first;
        return ScanBlock{batch, first, rest < 0 ? 0 : rest < kLanes ? rest : kLanes};
    };
    const float *state = p.state + batch * p.channels * p.n, *grad_state = w.grad_state + batch * p.channels * p.n;
    const auto end_of = [&](int64_t chunk) {
        return (chunk + 1) * kScanned < p.length ? (chunk + 1) * kScanned : p.length;
    };
    __builtin_memset(g.by_a, 0, most * size * sizeof(float));
    for (int64_t i = 0; i < most && block_at(i).count > 0; ++i) {
        const ScanBlock block = block_at(i);
        block.turn(p.a, p.n, g.a);
        block.turn(state, p.n, g.state);
        block.turn(grad_state, p.n, g.carried + i * size);
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            __builtin_memcpy(g.starts + (i * chunks + chunk) * size, g.state, size * sizeof(float));
            if (chunk + 1 < chunks) scan_positions(p, g, block, chunk * kScanned, end_of(chunk), false);
        }
    }
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
        const int64_t begin = chunk * kScanned, end = end_of(chunk);
        __builtin_memset(g.b, 0, kScanned * size * sizeof(float));
        __builtin_memset(g.c, 0, kScanned * size * sizeof(float));
        for (int64_t i = 0; i < most && block_at(i).count > 0; ++i) {
            const ScanBlock block = block_at(i);
            const float* start = g.starts + (i * chunks + chunk) * size;
            block.turn(p.a, p.n, g.a);
            __builtin_memcpy(g.state, start, size * sizeof(float));
            scan_positions(p, g, block, begin, end, true);
            scan_backward(w, g, block, start, g.carried + i * size, g.by_a + i * size, begin, end);
        }
        const int64_t at = (task * p.length + begin) * p.n;
        for (int64_t i = 0; i < (end - begin) * p.n; ++i) {
            w.b[at + i] = sum(load(g.b + i * kLanes));
            w.c[at + i] = sum(load(g.c + i * kLanes));
        }
    }
    for (int64_t i = 0; i < most && block_at(i).count > 0; ++i) {
        const ScanBlock block = block_at(i);
        const int64_t row = (batch * p.channels + block.first) * p.n;
        transpose(g.carried + i * size, kLanes, w.state + row, p.n, p.n, block.count);
        transpose(g.by_a + i * size, kLanes, w.a + row, p.n, p.n, block.count);
    }
}

inline int64_t selective_backward_tasks(const SelectiveScanBackward& w) { return w.forward.batch * w.slices; }

inline int64_t selective_backward_workspace(const SelectiveScanBackward& w) {
    Room room{nullptr};
    const ScanGradients gradients(w.forward, blocks_of_slice(w), room);
    return room.used;
}
