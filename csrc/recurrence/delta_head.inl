// One head of the gated delta rule.

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
