// The gated delta rule, of one head: position by position where there are few, else in chunks. Chunks are what
// src/torchgguf/kernels/recurrence/gated_delta.py explains.

constexpr int64_t kChunk = 16;
static_assert(kChunk % kLanes == 0);
constexpr int64_t kFewPositions = 4;  // below, chunks do not pay

// What a head reads and writes; rows of a position are so many floats apart.
struct DeltaHead {
    const float *query, *key, *value, *decay, *beta, *state;
    float *out, *new_state;
    int64_t keys, values, decays, betas;

    DeltaHead(const DeltaRule& p, int64_t task)
        : keys(p.key_heads * p.n),
          values(p.heads * p.v),
          decays(p.heads * (p.channel_decay ? p.n : 1)),
          betas(p.heads) {
        const int64_t batch = task / p.heads, head = task % p.heads, key_head = head / (p.heads / p.key_heads);
        const int64_t first = batch * p.length;
        query = p.query + first * keys + key_head * p.n;
        key = p.key + first * keys + key_head * p.n;
        value = p.value + first * values + head * p.v;
        out = p.out + first * values + head * p.v;
        decay = p.decay + first * decays + head * (p.channel_decay ? p.n : 1);
        beta = p.beta + first * betas + head;
        state = p.state + task * p.n * p.v;
        new_state = p.new_state + task * p.n * p.v;
    }
};

// One position, on some columns of the state. `factor` moves by `next` from channel to channel.
template <int vectors>
inline void delta_columns(const DeltaRule& p, const float* query, const float* key, const float* value,
                          const float* factor, int64_t next, float beta, const float* from, float* to, int64_t row,
                          float* out) {
    F stored[vectors]{}, read[vectors]{}, added[vectors];
    for (int64_t i = 0; i < p.n && p.corrected; ++i) {
        const float k = key[i] * factor[i * next];
        for (int j = 0; j < vectors; ++j) stored[j] += k * load(from + i * row + j * kLanes);
    }
    for (int j = 0; j < vectors; ++j) added[j] = beta * (load(value + j * kLanes) - stored[j]);
    for (int64_t i = 0; i < p.n; ++i) {
        const float f = factor[i * next], k = key[i], q = query[i];
        for (int j = 0; j < vectors; ++j) {
            const F s = f * load(from + i * row + j * kLanes) + k * added[j];
            read[j] += q * s;
            store(to + i * row + j * kLanes, s);
        }
    }
    for (int j = 0; j < vectors; ++j) store(out + j * kLanes, read[j]);
}

// Where V is not whole vectors, states, values and outputs are in the workspace, where rows are.
inline void delta_steps(const DeltaRule& p, const DeltaHead& h, float* workspace) {
    const int64_t row = round_up(p.v);
    float* factor = workspace;
    float* value = factor + round_up(p.n);
    float* out = value + row;
    float* state = out + row;
    const bool whole = row == p.v;
    const float* from = h.state;
    float* to = whole ? h.new_state : state;
    if (!whole) copy_rows(h.state, p.v, state, row, p.n, p.v), from = state;
    for (int64_t t = 0; t < p.length; ++t) {
        const float* v = h.value + t * h.values;
        float* o = whole ? h.out + t * h.values : out;
        if (!whole) copy_rows(v, 0, value, 0, 1, p.v), v = value;
        exp_of(h.decay + t * h.decays, factor, p.channel_decay ? p.n : 1);
        const float *q = h.query + t * h.keys, *k = h.key + t * h.keys;
        const float beta = h.beta[t * h.betas];
        const int64_t next = p.channel_decay ? 1 : 0;
        int64_t j = 0;
        for (; j + kStepVectors * kLanes <= row; j += kStepVectors * kLanes) {
            delta_columns<kStepVectors>(p, q, k, v + j, factor, next, beta, from + j, to + j, row, o + j);
        }
        for (; j < row; j += kLanes) delta_columns<1>(p, q, k, v + j, factor, next, beta, from + j, to + j, row, o + j);
        if (!whole) copy_rows(out, 0, h.out + t * h.values, 0, 1, p.v);
        from = to;
    }
    if (!whole) copy_rows(state, row, h.new_state, p.v, p.n, p.v);
}

// The matrices of a chunk; rows are whole vectors.
struct DeltaChunk {
    int64_t n_row, v_row;
    float* state;                        // (N, V)
    float* keys;                         // (N, kChunk): transposed
    float *factor, *decay;               // (kChunk, N) or (kChunk, 1); (N) or (kChunk)
    float *reader, *corrector, *writer;  // (kChunk, N): queries and keys since the start, keys until the end
    float *system, *scores;              // (kChunk, kChunk)
    float *added, *out;                  // (kChunk, V)
    float* end;

    DeltaChunk(const DeltaRule& p, float* workspace) : n_row(round_up(p.n)), v_row(round_up(p.v)), end(workspace) {
        state = take(p.n * v_row);
        keys = take(p.n * kChunk);
        factor = take(kChunk * (p.channel_decay ? n_row : 1));
        decay = take(n_row > kChunk ? n_row : kChunk);
        reader = take(kChunk * n_row);
        corrector = take(kChunk * n_row);
        writer = take(kChunk * n_row);
        system = take(kChunk * kChunk);
        scores = take(kChunk * kChunk);
        added = take(kChunk * v_row);
        out = take(kChunk * v_row);
    }

private:
    float* take(int64_t floats) {
        float* begin = end;
        end += round_up(floats);
        return begin;
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
    for (int64_t s = 0; s < kChunk; s += kLanes) store(c.decay + s, F{} + 1.0f);
    for (int64_t t = 0; t < count; ++t) {
        float *systems = c.system + t * kChunk, *scores = c.scores + t * kChunk;
        for (int64_t s = 0; s < t + block && s < kChunk; s += kLanes) {
            const Order order(t, s);
            const F old = load(c.decay + s), decays = order.earlier ? old * c.factor[t] : old;
            store(c.decay + s, decays);
            if (p.corrected) store(systems + s, order.earlier ? load(systems + s) * decays : F{});
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
            store(systems + s, order.earlier ? system : F{});
            store(scores + s, order.later ? F{} : score);
        }
    }
}

// Fills `reader`, `corrector` and `writer`, and `decay` with the decay of the whole chunk, (N).
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
        store(c.decay + i, since);
        for (int64_t t = count - 1; t >= 0; --t) {
            store(c.writer + t * c.n_row + i, row(key, t) * until);
            until *= factors(t, i);
        }
    }
}

// Reads `count` positions from `t` on: outputs, and the state after them.
inline void delta_chunk(const DeltaRule& p, const DeltaHead& h, const DeltaChunk& c, int64_t t, int64_t count) {
    const Elements query{h.query + t * h.keys, h.keys, 1}, key{h.key + t * h.keys, h.keys, 1};
    const float* beta = h.beta + t * h.betas;
    const Rows state{c.state, c.v_row}, added{c.added, c.v_row}, out{c.out, c.v_row};
    const Elements system{c.system, kChunk, 1}, scores{c.scores, kChunk, 1};
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

    copy_rows(h.value + t * h.values, h.values, c.added, c.v_row, count, p.v);
    if (p.corrected) multiply(count, p.v, p.n, {c.corrector, c.n_row, 1}, state, out, false);
    for (int64_t i = 0; i < count; ++i) {
        const float strength = beta[i * h.betas];
        float *row = c.added + i * c.v_row, *stored = c.out + i * c.v_row, *systems = c.system + i * kChunk;
        for (int64_t j = 0; j < p.v; j += kLanes) {
            const F error = p.corrected ? load(row + j) - load(stored + j) : load(row + j);
            store(row + j, strength * error);
        }
        for (int64_t s = 0; s < kChunk && p.corrected; s += kLanes) store(systems + s, load(systems + s) * -strength);
    }
    if (p.corrected) solve_lower(count, p.v, system, added);

    multiply(count, p.v, p.n, {c.reader, c.n_row, 1}, state, out, false);
    multiply_lower(count, p.v, scores, added, out, true);
    copy_rows(c.out, c.v_row, h.out + t * h.values, h.values, count, p.v);

    for (int64_t i = 0; i < p.n; ++i) {
        float* row = c.state + i * c.v_row;
        for (int64_t j = 0; j < p.v; j += kLanes) store(row + j, load(row + j) * c.decay[i]);
    }
    multiply(p.n, p.v, count, {c.writer, 1, c.n_row}, added, state, true);
}

inline void compute_delta_rule(const DeltaRule& p, int64_t task, float* workspace) {
    const DeltaHead head(p, task);
    if (p.length == 0) return copy_rows(head.state, p.v, head.new_state, p.v, p.n, p.v);
    if (p.length < kFewPositions) return delta_steps(p, head, workspace);
    const DeltaChunk chunk(p, workspace);
    copy_rows(head.state, p.v, chunk.state, chunk.v_row, p.n, p.v);
    for (int64_t t = 0; t < p.length; t += kChunk) {
        delta_chunk(p, head, chunk, t, p.length - t < kChunk ? p.length - t : kChunk);
    }
    copy_rows(chunk.state, chunk.v_row, head.new_state, p.v, p.n, p.v);
}

inline int64_t delta_rule_tasks(const DeltaRule& p) { return p.batch * p.heads; }

inline int64_t delta_rule_workspace(const DeltaRule& p) {
    float* none = nullptr;
    if (p.length < kFewPositions) return (p.n + 2) * round_up(p.v) + round_up(p.n);
    return DeltaChunk(p, none).end - none;
}
