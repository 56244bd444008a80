// The gradients of the gated delta rule, of heads of values that share keys: chunk by chunk from the end. What each
// product is for: src/torchgguf/kernels/recurrence/gated_delta.py.

// What the gradients of a chunk need beside the chunk itself; rows are whole vectors.
struct DeltaGradients {
    float* states;                 // (chunks, N, V): before each chunk
    float *state, *out;            // (N, V), (kChunk, V): of the state after the chunk, of outputs
    float *added, *loss;           // (kChunk, V): of what is added to the state; of v - k S, negated
    float *query, *key, *written;  // (kChunk, N): what queries and keys get from the state before, keys from that after
    float *queries, *keys;         // (kChunk, N): copies
    float *start, *end;            // (kChunk, N): of the logarithms of decays since the start and until the end
    float* whole;                  // (N): of that of the chunk
    float *scores, *products;      // (kChunk, kChunk): of products of queries with keys, and of keys
    float* turned;                 // (V, N) or (V, kChunk)

    DeltaGradients(const DeltaRule& p, Room& room) {
        const int64_t n_row = round_up(p.n), v_row = round_up(p.v), chunks = (p.length + kChunk - 1) / kChunk;
        states = room.take(chunks * p.n * v_row);
        state = room.take(p.n * v_row);
        float** const by_values[] = {&out, &added, &loss};
        for (float** rows : by_values) *rows = room.take(kChunk * v_row);
        float** const by_channels[] = {&query, &key, &written, &queries, &keys, &start, &end};
        for (float** rows : by_channels) {
            *rows = room.take(kChunk * n_row);
        }
        whole = room.take(n_row);
        float** const squares[] = {&scores, &products};
        for (float** square : squares) *square = room.take(kChunk * kChunk);
        turned = room.take(p.v * (n_row > kChunk ? n_row : kChunk));
    }
};

// Where the gradients of a head go; rows of a position are so many floats apart.
struct DeltaOutputs {
    const float *grad_out, *grad_state;
    float *query, *key, *value, *decay, *beta, *state;
    int64_t keys;
    bool first;  // of the heads that share gradients of queries and keys

    DeltaOutputs(const DeltaRuleBackward& b, const DeltaRule& p, int64_t batch, int64_t head, int64_t per_slice)
        : keys(p.key_heads * b.slices * p.n), first(head % per_slice == 0) {
        const int64_t at = batch * p.length, row = (at * p.heads + head), width = p.channel_decay ? p.n : 1;
        const int64_t size = p.n * p.v, slice = head / per_slice;
        query = b.query + at * keys + slice * p.n;
        key = b.key + at * keys + slice * p.n;
        grad_out = b.grad_out + row * p.v;
        value = b.value + row * p.v;
        decay = b.decay + row * width;
        beta = b.beta + row;
        grad_state = b.grad_state + (batch * p.heads + head) * size;
        state = b.state + (batch * p.heads + head) * size;
    }
};

// Gradients of what is added, of values and of strengths: the chunk's system, transposed.
inline void solve_gradients(const DeltaRule& p, const DeltaHead& h, const DeltaOutputs& o, const DeltaChunk& c,
                            const DeltaGradients& g, int64_t t, int64_t count) {
    const Rows added{g.added, c.v_row}, loss{g.loss, c.v_row};
    multiply(count, p.v, p.n, {c.writer, c.n_row, 1}, {g.state, c.v_row}, added, false);
    multiply(count, p.v, count, {c.scores, 1, kChunk}, {g.out, c.v_row}, added, true);
    for (int64_t s = count - 1; s >= 0; --s) {
        float* row = g.added + s * c.v_row;
        if (p.corrected) {  // `system` and `loss` are both negated
            const Elements later = Elements{c.system, 1, kChunk}.from(s, s + 1);
            float products[kChunk];
            for (int64_t i = 0; i < count - 1 - s; ++i) products[i] = -later.data[i * later.column];
            multiply(1, p.v, count - 1 - s, {products, 0, 1}, loss.from(s + 1, 0), {row, c.v_row}, true);
        }
        const float strength = h.beta[(t + s) * h.betas];
        float *value = g.loss + s * c.v_row, strong = 0.0f;
        for (int64_t j = 0; j < p.v; ++j) {
            strong += row[j] * c.error[s * c.v_row + j];
            o.value[(t + s) * h.values + j] = strength * row[j];
        }
        o.beta[(t + s) * h.betas] = strong;
        for (int64_t j = 0; j < p.v; j += kLanes) store(value + j, load(row + j) * -strength);
    }
}

// What queries and keys get from the states before and after the chunk, under the decays in between.
inline void state_gradients(const DeltaRule& p, const DeltaChunk& c, const DeltaGradients& g, int64_t count) {
    const Rows turned{g.turned, c.n_row};
    transpose(c.state, c.v_row, g.turned, c.n_row, p.n, p.v);
    multiply(count, p.n, p.v, {g.out, c.v_row, 1}, turned, {g.query, c.n_row}, false);
    if (p.corrected) multiply(count, p.n, p.v, {g.loss, c.v_row, 1}, turned, {g.key, c.n_row}, false);
    transpose(g.state, c.v_row, g.turned, c.n_row, p.n, p.v);
    multiply(count, p.n, p.v, {c.added, c.v_row, 1}, turned, {g.written, c.n_row}, false);
    for (int64_t i = 0; i < p.n; ++i) {
        F products{};
        float rest = 0.0f;
        const float *after = g.state + i * c.v_row, *before = c.state + i * c.v_row;
        int64_t j = 0;
        for (; j + kLanes <= p.v; j += kLanes) products += load(after + j) * load(before + j);
        for (; j < p.v; ++j) rest += after[j] * before[j];
        g.whole[i] = (sum(products) + rest) * c.whole[i];
    }
    for (int64_t i = 0; i < p.n; i += kLanes) {
        const auto factors = [&](int64_t t) {
            return p.channel_decay ? load(c.factor + t * c.n_row + i) : F{} + c.factor[t];
        };
        F since = F{} + 1.0f, until = F{} + 1.0f;
        for (int64_t t = 0; t < count; ++t) {
            const int64_t at = t * c.n_row + i;
            since *= factors(t);
            const F read = load(g.query + at), lost = p.corrected ? load(g.key + at) : F{};
            F start = load(c.reader + at) * read;
            if (p.corrected) start += load(c.corrector + at) * lost;
            store(g.start + at, start);
            store(g.query + at, read * since);
            store(g.key + at, lost * since);
        }
        for (int64_t t = count - 1; t >= 0; --t) {
            const int64_t at = t * c.n_row + i;
            const F written = load(g.written + at);
            store(g.end + at, load(c.writer + at) * written);
            store(g.key + at, load(g.key + at) + written * until);
            until *= factors(t);
        }
    }
}

// The gradients of the products of queries with keys and of keys with keys; where a decay is 0, so are both.
inline void product_gradients(const DeltaRule& p, const DeltaChunk& c, const DeltaGradients& g, int64_t count) {
    const Rows turned{g.turned, kChunk};
    transpose(c.added, c.v_row, g.turned, kChunk, count, p.v);
    multiply(count, count, p.v, {g.out, c.v_row, 1}, turned, {g.scores, kChunk}, false);
    if (p.corrected) multiply(count, count, p.v, {g.loss, c.v_row, 1}, turned, {g.products, kChunk}, false);
    for (int64_t t = 0; t < count; ++t) {
        for (int64_t s = 0; s < kChunk; s += kLanes) {
            const Order order(t, s);
            float *scores = g.scores + t * kChunk + s, *products = g.products + t * kChunk + s;
            store(scores, order.later ? F{} : load(scores));
            store(products, p.corrected ? (order.earlier ? load(products) : F{}) : F{});
        }
    }
}

// The sum over channels of row t of (kChunk, N).
inline float row_sum(const DeltaRule& p, const DeltaChunk& c, const float* rows, int64_t t) {
    F sums{};
    float rest = 0.0f;
    const float* row = rows + t * c.n_row;
    int64_t i = 0;
    for (; i + kLanes <= p.n; i += kLanes) sums += load(row + i);
    for (; i < p.n; ++i) rest += row[i];
    return sum(sums) + rest;
}

// Through the products within the chunk: gradients of queries, keys, and of the decays of heads.
inline void head_gradients(const DeltaRule& p, const DeltaChunk& c, const DeltaGradients& g, int64_t count,
                           float* decay, int64_t next) {
    float terms[kChunk][kChunk], grads[kChunk]{};
    for (int64_t t = 0; t < count; ++t) {
        for (int64_t s = 0; s < kChunk; s += kLanes) {
            const int64_t at = t * kChunk + s;
            const F scores = load(g.scores + at), products = load(g.products + at), decays = load(c.decays + at);
            F term = scores * load(c.scores + at);
            if (p.corrected) term -= products * load(c.system + at);
            store(terms[t] + s, term);
            store(g.scores + at, scores * decays);
            store(g.products + at, products * decays);
        }
    }
    const Rows queries{g.queries, c.n_row}, keys{g.keys, c.n_row}, query{g.query, c.n_row}, key{g.key, c.n_row};
    multiply(count, p.n, count, {g.scores, kChunk, 1}, keys, query, true);
    multiply(count, p.n, count, {g.scores, 1, kChunk}, queries, key, true);
    if (p.corrected) {
        multiply(count, p.n, count, {g.products, kChunk, 1}, keys, key, true);
        multiply(count, p.n, count, {g.products, 1, kChunk}, keys, key, true);
    }
    float until = row_sum(p, c, g.whole, 0);
    for (int64_t i = 0; i < count; ++i) {
        grads[i] += until;
        until += row_sum(p, c, g.end, i);
    }
    for (int64_t t = 0; t < count; ++t) {
        float since = row_sum(p, c, g.start, t);
        for (int64_t i = 0; i <= t; ++i) {
            grads[i] += since;
            since += terms[t][i];
        }
    }
    for (int64_t i = 0; i < count; ++i) decay[i * next] = grads[i];
}

// The same with decays of channels: earlier keys decay to each position, then later queries and keys back to it.
inline void channel_gradients(const DeltaRule& p, const DeltaChunk& c, const DeltaGradients& g, int64_t count,
                              float* decay, int64_t next) {
    const int64_t row = c.n_row;
    for (int64_t i = 0; i < p.n; i += kLanes) {
        F decayed[kChunk], turned[kChunk], grads[kChunk];
        for (int64_t t = 0; t < count; ++t) {
            const F factor = load(c.factor + t * row + i), q = load(g.queries + t * row + i);
            const F k = load(g.keys + t * row + i);
            F by_query{}, by_key{};
            for (int64_t s = 0; s < t; ++s) {
                decayed[s] *= factor;
                by_query += g.scores[t * kChunk + s] * decayed[s];
                by_key += g.products[t * kChunk + s] * decayed[s];
            }
            decayed[t] = k;
            grads[t] = q * by_query + k * by_key + load(g.start + t * row + i);
            by_query += g.scores[t * kChunk + t] * k;
            store(g.query + t * row + i, load(g.query + t * row + i) + by_query);
            store(g.key + t * row + i, load(g.key + t * row + i) + by_key);
        }
        for (int64_t s = count - 1; s >= 0; --s) {
            const F q = load(g.queries + s * row + i), k = load(g.keys + s * row + i);
            F by_later{};
            for (int64_t t = s + 1; t < count; ++t) {
                const F factor = load(c.factor + (s + 1) * row + i);
                turned[t] *= factor;
                decayed[t] *= factor;
                by_later += g.scores[t * kChunk + s] * turned[t] + g.products[t * kChunk + s] * decayed[t];
            }
            turned[s] = q;
            decayed[s] = k;
            grads[s] -= k * by_later;
            by_later += g.scores[s * kChunk + s] * q;
            store(g.key + s * row + i, load(g.key + s * row + i) + by_later);
        }
        for (int64_t t = count - 2; t >= 0; --t) grads[t] += grads[t + 1];
        F until = load(g.whole + i);
        for (int64_t t = 0; t < count; ++t) {
            const F all = grads[t] + until;
            until += load(g.end + t * row + i);
            if (i + kLanes <= p.n) {
                store(decay + t * next + i, all);
            } else {
                store_some(decay + t * next + i, all, p.n - i);
            }
        }
    }
}

inline void add_rows(const float* src, int64_t src_row, float* dst, int64_t dst_row, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) dst[i * dst_row + j] += src[i * src_row + j];
    }
}

inline void delta_head_backward(const DeltaRule& p, const DeltaHead& h, const DeltaOutputs& o, const DeltaChunk& c,
                                const DeltaGradients& g) {
    const int64_t size = p.n * c.v_row;
    const auto count_from = [&](int64_t t) { return p.length - t < kChunk ? p.length - t : kChunk; };
    copy_rows(h.state, p.v, c.state, c.v_row, p.n, p.v);
    for (int64_t t = 0; t < p.length; t += kChunk) {
        __builtin_memcpy(g.states + t / kChunk * size, c.state, size * sizeof(float));
        if (t + kChunk >= p.length) break;
        solve_chunk(p, h, c, t, kChunk);
        advance_state(p, c, kChunk);
    }
    copy_rows(o.grad_state, p.v, g.state, c.v_row, p.n, p.v);
    for (int64_t t = (p.length - 1) / kChunk * kChunk; t >= 0; t -= kChunk) {
        const int64_t count = count_from(t);
        __builtin_memcpy(c.state, g.states + t / kChunk * size, size * sizeof(float));
        solve_chunk(p, h, c, t, count);
        copy_rows(o.grad_out + t * h.values, h.values, g.out, c.v_row, count, p.v);
        copy_rows(h.query + t * h.keys, h.keys, g.queries, c.n_row, count, p.n);
        copy_rows(h.key + t * h.keys, h.keys, g.keys, c.n_row, count, p.n);
        solve_gradients(p, h, o, c, g, t, count);
        state_gradients(p, c, g, count);
        product_gradients(p, c, g, count);
        const auto through = p.channel_decay ? channel_gradients : head_gradients;
        through(p, c, g, count, o.decay + t * h.decays, h.decays);
        const auto put = o.first ? copy_rows : add_rows;
        put(g.query, c.n_row, o.query + t * o.keys, o.keys, count, p.n);
        put(g.key, c.n_row, o.key + t * o.keys, o.keys, count, p.n);
        decay_state(p, c, g.state);
        const Rows state{g.state, c.v_row};
        multiply(p.n, p.v, count, {c.reader, 1, c.n_row}, {g.out, c.v_row}, state, true);
        if (p.corrected) multiply(p.n, p.v, count, {c.corrector, 1, c.n_row}, {g.loss, c.v_row}, state, true);
    }
    copy_rows(g.state, c.v_row, o.state, p.v, p.n, p.v);
}

inline int64_t delta_backward_tasks(const DeltaRuleBackward& b) {
    return b.forward.batch * b.forward.key_heads * b.slices;
}

inline void compute_delta_backward(const DeltaRuleBackward& b, int64_t task, float* workspace) {
    const DeltaRule& p = b.forward;
    const int64_t slices = p.key_heads * b.slices, per_slice = p.heads / slices;
    Room room{workspace};
    const DeltaChunk chunk(p, room);
    const DeltaGradients gradients(p, room);
    const int64_t batch = task / slices, first = task % slices * per_slice;
    for (int64_t head = first; head < first + per_slice; ++head) {
        const DeltaHead inputs(p, batch * p.heads + head);
        delta_head_backward(p, inputs, DeltaOutputs(b, p, batch, head, per_slice), chunk, gradients);
    }
}

inline int64_t delta_backward_workspace(const DeltaRuleBackward& b) {
    Room room{nullptr};
    const DeltaChunk chunk(b.forward, room);
    const DeltaGradients gradients(b.forward, room);
    return room.used;
}
