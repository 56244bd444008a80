// The recurrence of Mamba 2 on few positions, of one head. Many positions are a delta rule without correction.

inline void compute_state_space_step(const StateSpaceStep& p, int64_t task, float*) {
    const int64_t batch = task / p.heads, head = task % p.heads, group = head / (p.heads / p.groups);
    const float* from = p.state + task * p.v * p.n;
    float* to = p.new_state + task * p.v * p.n;
    const int64_t whole = p.n / kLanes * kLanes;
    if (p.length == 0) __builtin_memcpy(to, from, p.v * p.n * sizeof(float));
    for (int64_t t = 0; t < p.length; ++t, from = to) {
        const int64_t at = batch * p.length + t;
        const float *b = p.b + (at * p.groups + group) * p.n, *c = p.c + (at * p.groups + group) * p.n;
        const float *x = p.x + (at * p.heads + head) * p.v, step = p.step[at * p.heads + head];
        float* out = p.out + (at * p.heads + head) * p.v;
        const float factor = exp(F{} + step * p.a[head])[0];
        for (int64_t i = 0; i < p.v; ++i) {
            const float *old = from + i * p.n, added = step * x[i];
            float* row = to + i * p.n;
            F reads[2]{};
            int64_t j = 0;
            for (; j + 2 * kLanes <= whole; j += 2 * kLanes) {
                for (int k = 0; k < 2; ++k) {
                    const F s = factor * load(old + j + k * kLanes) + added * load(b + j + k * kLanes);
                    store(row + j + k * kLanes, s);
                    reads[k] += s * load(c + j + k * kLanes);
                }
            }
            for (; j < whole; j += kLanes) {
                const F s = factor * load(old + j) + added * load(b + j);
                store(row + j, s);
                reads[0] += s * load(c + j);
            }
            float read = sum(reads[0] + reads[1]);
            for (; j < p.n; ++j) {
                row[j] = factor * old[j] + added * b[j];
                read += row[j] * c[j];
            }
            out[i] = read;
        }
    }
}

inline int64_t state_space_tasks(const StateSpaceStep& p) { return p.batch * p.heads; }
inline int64_t state_space_workspace(const StateSpaceStep&) { return 0; }
