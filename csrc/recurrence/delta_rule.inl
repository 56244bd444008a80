// The gated delta rule, of one head: position by position where there are few, else in chunks.

constexpr int64_t kFewPositions = 4;  // below, chunks do not pay

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

inline void compute_delta_rule(const DeltaRule& p, int64_t task, float* workspace) {
    const DeltaHead head(p, task);
    if (p.length == 0) return copy_rows(head.state, p.v, head.new_state, p.v, p.n, p.v);
    if (p.length < kFewPositions) return delta_steps(p, head, workspace);
    Room room{workspace};
    const DeltaChunk chunk(p, room);
    copy_rows(head.state, p.v, chunk.state, chunk.v_row, p.n, p.v);
    for (int64_t t = 0; t < p.length; t += kChunk) {
        const int64_t count = p.length - t < kChunk ? p.length - t : kChunk;
        solve_chunk(p, head, chunk, t, count);
        read_chunk(p, head, chunk, t, count);
        advance_state(p, chunk, count);
    }
    copy_rows(chunk.state, chunk.v_row, head.new_state, p.v, p.n, p.v);
}

inline int64_t delta_rule_tasks(const DeltaRule& p) { return p.batch * p.heads; }

inline int64_t delta_rule_workspace(const DeltaRule& p) {
    if (p.length < kFewPositions) return (p.n + 2) * round_up(p.v) + round_up(p.n);
    Room room{nullptr};
    const DeltaChunk chunk(p, room);
    return room.used;
}
