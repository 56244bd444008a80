// A chunk of the gated delta rule: what src/torchgguf/kernels/recurrence/gated_delta.py explains.

constexpr int64_t kChunk = 16;
static_assert(kChunk % kLanes == 0);

// The matrices of a chunk; rows are whole vectors.
struct DeltaChunk {
    int64_t n_row, v_row;
    float* state;                        // (N, V)
    float* keys;                         // (N, kChunk): transposed
    float* factor;                       // (kChunk, N) or (kChunk, 1)
    float* decays;                       // (kChunk, kChunk): between positions, where all channels decay alike
    float* whole;                        // (N): of the chunk
    float *reader, *corrector, *writer;  // (kChunk, N): queries and keys since the start, keys until the end
    float *system, *scores;              // (kChunk, kChunk): of keys with earlier keys, negated; of queries with keys
    float *error, *added, *out;          // (kChunk, V): v - k S, that times beta, outputs

    DeltaChunk(const DeltaRule& p, Room& room) : n_row(round_up(p.n)), v_row(round_up(p.v)) {
        state = room.take(p.n * v_row);
        keys = room.take(p.n * kChunk);
        factor = room.take(kChunk * (p.channel_decay ? n_row : 1));
        whole = room.take(n_row);
        float** const by_channels[] = {&reader, &corrector, &writer};
        for (float** rows : by_channels) *rows = room.take(kChunk * n_row);
        float** const squares[] = {&decays, &system, &scores};
        for (float** square : squares) *square = room.take(kChunk * kChunk);
        float** const by_values[] = {&error, &added, &out};
        for (float** rows : by_values) *rows = room.take(kChunk * v_row);
    }
};

// Which of the positions from s on are before t, and which after it.
struct Order {
    I earlier, later;

    Order(int64_t t, int64_t s) {
        int32_t lanes[kLanes];
        for (int i = 0; i < kLanes; ++i) lanes[i] = i;
        I lane;
        __builtin_memcpy(&lane, lanes, sizeof lane);
        const auto place = static_cast<int32_t>(t - s);
        earlier = lane<place, later = lane> place;
    }
};

// Products of keys with earlier keys, and of queries with keys, under the decays between them.
inline void head_products(const DeltaRule& p, const DeltaChunk& c, const Elements& query, const Elements& key,
                          int64_t count) {
    constexpr int64_t block = 2 * kTileRows;
    for (int64_t t = 0; t < count; t += block) {
        const int64_t rows = count - t < block ? count - t : block;
        const Rows transposed{c.keys, kChunk};
        if (p.corrected) {
            multiply(rows, t + rows, p.n, key.from(t, 0), transposed, {c.system + t * kChunk, kChunk}, false);
        }
        multiply(rows, t + rows, p.n, query.from(t, 0), transposed, {c.scores + t * kChunk, kChunk}, false);
    }
    for (int64_t t = 0; t < count; ++t) {
        float *systems = c.system + t * kChunk, *scores = c.scores + t * kChunk, *to_t = c.decays + t * kChunk;
        for (int64_t s = 0; s < kChunk; s += kLanes) {
            const Order order(t, s);
            const F one = F{} + 1.0f, before = t ? load(to_t - kChunk + s) : one;
            const F decays = order.earlier ? before * c.factor[t] : one;
            store(to_t + s, decays);
            if (p.corrected) store(systems + s, order.earlier ? -load(systems + s) * decays : F{});
            store(scores + s, order.later ? F{} : load(scores + s) * decays);
        }
    }
}

// The same where each channel has its decay: earlier keys decay from position to position.
inline void channel_products(const DeltaRule& p, const DeltaChunk& c, const Elements& query, const Elements& key,
                             int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
        float *systems = c.system + t * kChunk, *scores = c.scores + t * kChunk;
        const float *k = key.from(t, 0).data, *q = query.from(t, 0).data, *factor = c.factor + t * c.n_row;
        for (int64_t s = 0; s < kChunk; s += kLanes) store(systems + s, F{}), store(scores + s, F{});
        for (int64_t s = 0; s <= t; s += kLanes) {
            const Order order(t, s);
            F system{}, score{};
            for (int64_t i = 0; i < p.n; ++i) {
                const F old = load(c.keys + i * kChunk + s);
                const F decayed = order.earlier ? old * factor[i] : old;
                store(c.keys + i * kChunk + s, decayed);
                system += k[i] * decayed;
                score += q[i] * decayed;
            }
            store(systems + s, order.earlier ? -system : F{});
            store(scores + s, order.later ? F{} : score);
        }
    }
}

// Fills `reader`, `corrector`, `writer` and `whole`.
inline void decayed_rows(const DeltaRule& p, const DeltaChunk& c, const Elements& query, const Elements& key,
                         int64_t count) {
    const auto factors = [&](int64_t t, int64_t i) {
        return p.channel_decay ? load(c.factor + t * c.n_row + i) : F{} + c.factor[t];
    };
    for (int64_t i = 0; i < p.n; i += kLanes) {
        const int64_t some = p.n - i < kLanes ? p.n - i : kLanes;
        const auto row = [&](const Elements& rows, int64_t t) {
            const float* at = rows.from(t, i).data;
            return some == kLanes ? load(at) : load_some(at, some);
        };
        F since = F{} + 1.0f, until = F{} + 1.0f;
        for (int64_t t = 0; t < count; ++t) {
            since *= factors(t, i);
            store(c.reader + t * c.n_row + i, row(query, t) * since);
            if (p.corrected) store(c.corrector + t * c.n_row + i, row(key, t) * since);
        }
        store(c.whole + i, since);
        for (int64_t t = count - 1; t >= 0; --t) {
            store(c.writer + t * c.n_row + i, row(key, t) * until);
            until *= factors(t, i);
        }
    }
}

// Finds what `count` positions from `t` on add to the state, and all that leads there.
inline void solve_chunk(const DeltaRule& p, const DeltaHead& h, const DeltaChunk& c, int64_t t, int64_t count) {
    const Elements query{h.query + t * h.keys, h.keys, 1}, key{h.key + t * h.keys, h.keys, 1};
    transpose(key.data, key.row, c.keys, kChunk, count, p.n);
    if (p.channel_decay) {
        for (int64_t i = 0; i < count; ++i) exp_of(h.decay + (t + i) * h.decays, c.factor + i * c.n_row, p.n);
        channel_products(p, c, query, key, count);
    } else {
        for (int64_t i = 0; i < count; ++i) c.factor[i] = h.decay[(t + i) * h.decays];
        exp_of(c.factor, c.factor, count);
        head_products(p, c, query, key, count);
    }
    decayed_rows(p, c, query, key, count);

    copy_rows(h.value + t * h.values, h.values, c.error, c.v_row, count, p.v);
    const Rows error{c.error, c.v_row}, added{c.added, c.v_row};
    const Elements system{c.system, kChunk, 1};
    if (p.corrected) {
        const Rows stored{c.out, c.v_row};
        multiply(count, p.v, p.n, {c.corrector, c.n_row, 1}, {c.state, c.v_row}, stored, false);
        for (int64_t j = 0; j < count * c.v_row; j += kLanes) store(c.error + j, load(c.error + j) - load(c.out + j));
    }
    for (int64_t i = 0; i < count; i += kTileRows) {
        const int64_t rows = count - i < kTileRows ? count - i : kTileRows;
        if (p.corrected) multiply(rows, p.v, i, system.from(i, 0), added, error.from(i, 0), true);
        for (int64_t s = i; s < i + rows; ++s) {
            if (p.corrected) multiply(1, p.v, s - i, system.from(s, i), added.from(i, 0), error.from(s, 0), true);
            const float strength = h.beta[(t + s) * h.betas];
            const float* from = c.error + s * c.v_row;
            for (int64_t j = 0; j < p.v; j += kLanes) store(c.added + s * c.v_row + j, strength * load(from + j));
        }
    }
}

// (N, V) by the decays of its rows.
inline void decay_state(const DeltaRule& p, const DeltaChunk& c, float* state) {
    for (int64_t i = 0; i < p.n; ++i) {
        float* row = state + i * c.v_row;
        for (int64_t j = 0; j < p.v; j += kLanes) store(row + j, load(row + j) * c.whole[i]);
    }
}

inline void advance_state(const DeltaRule& p, const DeltaChunk& c, int64_t count) {
    decay_state(p, c, c.state);
    multiply(p.n, p.v, count, {c.writer, 1, c.n_row}, {c.added, c.v_row}, {c.state, c.v_row}, true);
}

inline void read_chunk(const DeltaRule& p, const DeltaHead& h, const DeltaChunk& c, int64_t t, int64_t count) {
    const Rows out{c.out, c.v_row};
    multiply(count, p.v, p.n, {c.reader, c.n_row, 1}, {c.state, c.v_row}, out, false);
    multiply_lower(count, p.v, {c.scores, kChunk, 1}, {c.added, c.v_row}, out, true);
    copy_rows(c.out, c.v_row, h.out + t * h.values, h.values, count, p.v);
}
